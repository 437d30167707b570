"""Rooms and modules import only downwards, and files keep to a size."""

import ast
import inspect
import pathlib

import pytest

import tfbinreg

ROOT = pathlib.Path(__file__).parent.parent
MAX_LINES = 500

# Rooms, lowest first, and the modules of each, leaves first. A module may import what stands above
# it, and nothing else; a line without a colon is a module outside the rooms.
ROOMS = """
tflite_tools.system: bounded files progress quiet suggestions
tflite_tools.schema: bit_fields compact flatbuffer manifest card writer lut_decode contents codes
  value_tables file_layout
tflite_tools.arithmetic: lost_numbers fixed_point multipliers lookup_tables geometry
  interpolation short_constants
tfbinreg.version
tfbinreg._compat
tfbinreg.core: warning grid target channel_folding weight_starts lp_steps powell problems recipe
tfbinreg.recipes
tfbinreg.network: layer_kinds edges graph fusing open_sizes grouped_convolution hard_swish
  value_functions added_layers normalizations
tfbinreg.methods: lsq_functions solver_view contract uniform trace_facts uniform_activations
  fixed_grid lsq_quantizers lsq_plus lsq tqt gdrq_quantizers gdrq bin_regularization msqe
  dampening kure freezing trs tsq_least_squares tsq_quantizers tsq lapq_search lapq
  alq_functions alq_sketch alq_quantizers alq bsq_quantizers bsq drop_bits
  cpq_expected cpq_functions cpq_quantizers cpq mirror_quantizers mirror_descent roster table
  __main__
tfbinreg.frontend: program operation_names remedies keras_dialects tracing read
  positive_factors builder activation_rules pool_rules layer_rules function_rules kernel_rules
  shape_rules operation_rules normalize keras3_objects
tfbinreg.planning: plan wishes grid_sharing signs kernel_plans grid_plans decide
tfbinreg.layers: kernel folded_kernel config sites
tfbinreg.deploy: frozen quantization_card finest_grids tflite_operators tflite_file operations
  shortening kernels freeze tf_ops
  integer_ops tflm_arithmetic litert_arithmetic former_arithmetic integer_model deployed proof
  output_proof export
tfbinreg.training: model_checks constant_columns assemble weight_files keras_files
  weight_statistics histograms penalties bin_options traced_function training_progress
  step_holding
  weight_updates integer_inference model_config model soft_targets distillation
  transition_log quantizer_log quantization_board weight_averages tfmot_scheme saving
  batch_statistics calibrate batch_norm
  lost_numbers strip quantize requantize train_blocks solver_data layer_rows solver_loss
  solver_model solve pulls penalty_schedule finalize_report
  best_statistics finalize
tfbinreg.budget: packed_bytes sensitivity channel_sensitivity cheapest choices flash_budget
  found_recipe budget_schedule
tfbinreg.plot
tfbinreg
tflite_tools.running: worker runtime samples
tflite_tools.pruning: relations kernels constants removal smaller
tflite_tools.checks: verdict agreement coarse_check pairing static isolate operator_checks
  trained_model same_weights derived_file compare rounding
tflite_tools.c: arena packing coding pads lowering channel_constants lower_kernels
  lower_moves lower_elementwise memory_map strip_step strips source_text row_parts streaming
  stream_text generate host_run
  stream_run boards host_size accuracy source_folder verify_folder packages
tflite_tools.device: lines conversation serial_port emulated measure
tflite_tools.formats: ethos result int4 split lut slim build
tflite_tools.reports: describe svg sizes markup document page_sections page_summary page report_text
  card_text comparison_text flash bench bench_text side_by_side side_by_side_page
tflite_tools.from_keras: c_bytes model_samples losses convert fit_flash train
tflite_tools
tflite_tools.commands: exit_codes flags convert_flags verify_flags benchmark_flags quantize_flags
  arguments given inspect convert quantize verify report benchmark completion cli
tflite_tools.__main__
"""


def _order(rooms):
    """Every module with its full name, in the order of `rooms`."""
    order = []
    for line in rooms.replace("\n  ", " ").split("\n"):
        room, _, modules = line.partition(":")
        order += [room, *(f"{room}.{module}" for module in modules.split())] if room else []
    return order


ORDER = _order(ROOMS)

# The only ways from one package into the other: from a room into rooms.
CROSSINGS = {
    "tfbinreg.deploy": ("tflite_tools.schema", "tflite_tools.arithmetic"),
    "tfbinreg.training": ("tflite_tools.arithmetic", "tflite_tools.system"),
    "tfbinreg.budget": ("tflite_tools.system",),
    "tflite_tools.from_keras": ("tfbinreg",),
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path
    for package in ("tfbinreg", "tflite_tools")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def room_of(name):
    """The room of a module; a module outside the rooms is its own."""
    return name.rpartition(".")[0] if name.count(".") > 1 else name


def imports(text, known):
    """The modules among `known` that a source text imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in below]
        else:
            continue
        found.update(name for name in names if name in known)
    return found


def violations(name, text, order=ORDER):
    """What the module `name` imports although it must not."""
    if name not in order:
        return [f"{name} has no place in the order"]
    wrong = []
    for other in sorted(imports(text, order)):
        crosses = other.split(".")[0] != name.split(".")[0]
        if order.index(other) >= order.index(name):
            wrong.append(f"{name} imports {other}, which is not below it")
        elif crosses and not other.startswith(CROSSINGS.get(room_of(name), ("-",))):
            wrong.append(f"{name} imports {other} of the other package")
    return wrong


def test_every_module_has_its_place():
    assert sorted(SOURCES) == sorted(ORDER)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_go_downwards(name):
    text = SOURCES[name].read_text()
    assert violations(name, text) == []
    assert "import *" not in text
    relative = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom) and n.level]
    assert relative == []  # `violations` reads absolute names


def test_crossings_are_used():
    for room, allowed in CROSSINGS.items():
        found = {
            room_of(other)
            for name in SOURCES
            if room_of(name) == room
            for other in imports(SOURCES[name].read_text(), ORDER)
        }
        assert set(allowed) <= found


GRID, OPS, FREEZE = "tfbinreg.core.grid", "tfbinreg.methods.lsq_functions", "tfbinreg.deploy.freeze"
VERIFY, CLI = "tflite_tools.checks.trained_model", "tflite_tools.commands.cli"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (GRID, "from tfbinreg.methods import lsq_functions", f"{OPS}, which is not below it"),
        (GRID, f"import {OPS}", f"{OPS}, which is not below it"),
        (OPS, f"from {OPS} import x", f"{OPS}, which is not below it"),
        (FREEZE, "import tfbinreg", "tfbinreg, which is not below it"),
        (FREEZE, "from tfbinreg import Grid", "tfbinreg, which is not below it"),
        (FREEZE, "from tflite_tools.system import files", "files of the other package"),
        (FREEZE, f"import {CLI}", f"{CLI}, which is not below it"),
        ("tflite_tools.schema.new", "", "tflite_tools.schema.new has no place in the order"),
        (VERIFY, "def f():\n    from tfbinreg.layers.sites import sites", "other package"),
    ],
)
def test_the_checker_finds_made_up_violations(name, text, message):
    (found,) = violations(name, text)
    assert message in found


def test_the_checker_accepts_what_is_allowed():
    text = (
        "import numpy\nfrom tfbinreg.core.grid import Grid\nfrom tflite_tools.schema import codes"
    )
    assert violations("tfbinreg.deploy.tflite_file", text) == []
    text = "def f():\n    import tfbinreg.deploy.export"
    assert violations("tflite_tools.from_keras.convert", text) == []


@pytest.mark.parametrize("name", SOURCES)
def test_files_keep_to_a_size_and_say_what_they_are_for(name):
    text = SOURCES[name].read_text()
    assert text.count("\n") <= MAX_LINES
    assert name.endswith("version") or ast.get_docstring(ast.parse(text))


def test_public_names_are_documented_and_sorted():
    assert tfbinreg.__all__ == sorted(tfbinreg.__all__)
    assert len(set(tfbinreg.__all__)) == len(tfbinreg.__all__)
    for name in tfbinreg.__all__:
        public = getattr(tfbinreg, name)
        if not isinstance(public, str):  # __version__
            assert getattr(public, "__module__", public.__name__).startswith("tfbinreg.")
            assert len(inspect.cleandoc(public.__doc__)) > 30, name


def test_importing_the_file_tools_does_not_import_tensorflow():
    lazy = {"tfbinreg", "tensorflow", "tf_keras", "tensorflow_model_optimization"}
    for name, path in SOURCES.items():
        if name.startswith("tflite_tools"):
            top = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import)]
            froms = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ImportFrom)]
            names = {a.name for n in top for a in n.names} | {n.module for n in froms}
            assert not {module.split(".")[0] for module in names} & lazy, name
