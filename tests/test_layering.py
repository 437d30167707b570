"""The modules import only downwards, and keep to a size."""

import ast
import inspect
import pathlib

import pytest

import tfbinreg

ROOT = pathlib.Path(__file__).parent.parent
MAX_LINES = 500

# Leaves first: a module may import those above it in this list and no others.
_TABLE = """
tflite_tools.fields
tflite_tools.coarse
tflite_tools.compact
tflite_tools.flatbuffer
tflite_tools.manifest
tflite_tools.writer
tflite_tools.decode
tflite_tools.codes
tflite_tools.model
tflite_tools

tflite_tools.formats
tflite_tools.formats.fixed_point
tflite_tools.formats.multipliers
tflite_tools.formats.tables

tfbinreg.version
tfbinreg.warning
tfbinreg._compat
tfbinreg.grid
tfbinreg.target
tfbinreg.channel_folding
tfbinreg.frozen
tfbinreg.tflite_operators
tfbinreg.tflite_file
tfbinreg.ops
tfbinreg.regularizers
tfbinreg.weight_starts
tfbinreg.problems
tfbinreg.recipe
tfbinreg.recipes
tfbinreg.kinds
tfbinreg.edges
tfbinreg.graph
tfbinreg.sizes
tfbinreg.plan
tfbinreg.quantizers
tfbinreg.activation_quantizers
tfbinreg.hard_swish
tfbinreg.layers
tfbinreg.checks
tfbinreg.constant_columns
tfbinreg.plain_layers
tfbinreg.folded
tfbinreg.program
tfbinreg.frontends
tfbinreg.reader
tfbinreg.signs
tfbinreg.builder
tfbinreg.rewrites
tfbinreg.operations
tfbinreg.normalize
tfbinreg.decide
tfbinreg.config
tfbinreg.place
tfbinreg.sites
tfbinreg.weight_files
tfbinreg.keras_files
tfbinreg.freeze
tfbinreg.tf_ops
tfbinreg.integer_ops
tfbinreg.tflm_arithmetic
tfbinreg.litert_arithmetic
tfbinreg.former_arithmetic
tfbinreg.integer_model
tfbinreg.deployed
tfbinreg.statistics
tfbinreg.keras3_objects
tfbinreg.model
tfbinreg.scheme
tfbinreg.saving
tfbinreg.batch_statistics
tfbinreg.calibrate
tfbinreg.batch_norm
tfbinreg.coarse
tfbinreg.quantize
tfbinreg.sensitivity
tfbinreg.budget
tfbinreg.callbacks
tfbinreg.finalize_report
tfbinreg.best_statistics
tfbinreg.finalize
tfbinreg.proof
tfbinreg.output_proof
tfbinreg.export
tfbinreg

tflite_tools.formats.arena
tflite_tools.formats.geometry
tflite_tools.formats.packing
tflite_tools.formats.lowering
tflite_tools.formats.kernels_c
tflite_tools.formats.moves_c
tflite_tools.formats.plain_c
tflite_tools.formats.placement
tflite_tools.formats.c_text
tflite_tools.formats.c_source
tflite_tools.layout
tflite_tools.describe
tflite_tools.svg
tflite_tools.worker
tflite_tools.bounded
tflite_tools.runtime
tflite_tools.samples
tflite_tools.verdict
tflite_tools.agreement
tflite_tools.coarse_check
tflite_tools.pairing
tflite_tools.checks
tflite_tools.isolate
tflite_tools.layers
tflite_tools.verify
tflite_tools.files
tflite_tools.quiet
tflite_tools.equality
tflite_tools.variant
tflite_tools.formats.c_check
tflite_tools.formats.device
tflite_tools.formats.c_size
tflite_tools.accuracy
tflite_tools.formats.c_folder
tflite_tools.c_verify
tflite_tools.compare
tflite_tools.rounding
tflite_tools.ethos
tflite_tools.formats.result
tflite_tools.formats.int4
tflite_tools.formats.split
tflite_tools.formats.lut
tflite_tools.formats.slim
tflite_tools.build
tflite_tools.sizes
tflite_tools.markup
tflite_tools.page_sections
tflite_tools.page
tflite_tools.report
tflite_tools.comparison_report
tflite_tools.flash
tflite_tools.model_samples
tflite_tools.convert
tflite_tools.squeeze
tflite_tools.bench
tflite_tools.flags
tflite_tools.arguments
tflite_tools.given
tflite_tools.bench_report
tflite_tools.convert_command
tflite_tools.verify_command
tflite_tools.cli
tflite_tools.__main__
"""
ORDER = _TABLE.split()

# The only ways from one package into the other; elsewhere not even a lower module may be imported.
CROSSINGS = {
    "tfbinreg.coarse": {"tflite_tools.coarse"},
    "tfbinreg.tflite_file": {"tflite_tools.writer", "tflite_tools.manifest", "tflite_tools.codes"},
    "tfbinreg.proof": {"tflite_tools.flatbuffer", "tflite_tools.model", "tflite_tools.codes"},
    "tfbinreg.tflm_arithmetic": {
        "tflite_tools.formats.fixed_point",
        "tflite_tools.formats.multipliers",
        "tflite_tools.formats.tables",
    },
    "tflite_tools.convert": {name for name in ORDER if name.startswith("tfbinreg")},
    "tflite_tools.squeeze": {name for name in ORDER if name.startswith("tfbinreg")},
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path
    for package in ("tfbinreg", "tflite_tools")
    for path in sorted((ROOT / package).rglob("*.py"))
}


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
        elif crosses and other not in CROSSINGS.get(name, ()):
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
    for name, allowed in CROSSINGS.items():
        assert imports(SOURCES[name].read_text(), ORDER) & allowed


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tfbinreg.grid", "from tfbinreg import ops", "tfbinreg.ops, which is not below it"),
        ("tfbinreg.grid", "import tfbinreg.ops", "tfbinreg.ops, which is not below it"),
        ("tfbinreg.ops", "from tfbinreg.ops import x", "tfbinreg.ops, which is not below it"),
        ("tfbinreg.freeze", "import tfbinreg", "tfbinreg, which is not below it"),
        ("tfbinreg.freeze", "from tfbinreg import Grid", "tfbinreg, which is not below it"),
        ("tfbinreg.freeze", "from tflite_tools import codes", "codes of the other package"),
        ("tfbinreg.proof", "import tflite_tools.cli", "tflite_tools.cli, which is not below it"),
        ("tflite_tools.new", "", "tflite_tools.new has no place in the order"),
        ("tflite_tools.verify", "def f():\n    from tfbinreg.sites import sites", "other package"),
    ],
)
def test_the_checker_finds_made_up_violations(name, text, message):
    (found,) = violations(name, text)
    assert message in found


def test_the_checker_accepts_what_is_allowed():
    text = "import numpy\nfrom tfbinreg.grid import Grid\nfrom tflite_tools import codes, manifest"
    assert violations("tfbinreg.tflite_file", text) == []
    assert violations("tflite_tools.convert", "def f():\n    import tfbinreg.export") == []


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
