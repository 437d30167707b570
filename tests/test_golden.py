"""Models and files of earlier versions: they load, predict, resume and verify as they did."""

import dataclasses
import functools
import os
import pathlib
import re
import shutil
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from golden import make
from quick import slow

import tfbinreg
from tfbinreg.deploy import tflite_file
from tfbinreg.deploy.freeze import freeze
from tfbinreg.deploy.frozen import FrozenGraph
from tfbinreg.deploy.integer_model import ARITHMETICS, IntegerModel
from tfbinreg.layers.sites import kernel_sites
from tflite_tools.c import host_run, source_folder
from tflite_tools.commands import cli
from tflite_tools.commands.arguments import parse
from tflite_tools.running import runtime, samples
from tflite_tools.schema import card, flatbuffer
from tflite_tools.schema import contents as models

GOLDEN = pathlib.Path(__file__).parent / "golden"
CASES = make.CASES
QUICK = ("device", "scheme", "dense", "phone")
SOME = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
SAVED = [f"{name}/{path}" for name, case in CASES.items() for path in case.models]
COMPILED = [path for path in SAVED if CASES[path.split("/")[0]].optimizer is not None]
WEIGHTS = [f"{name}/{path}" for name, case in CASES.items() for path in case.weights]
WITH_OPTIMIZER = [path for path in WEIGHTS if not path.endswith("/weights.h5")]
# Files that name modules; a SavedModel names none. Together they have every class.
MOVED = [
    *("lsq/model.h5", "folded/model.keras", "plus/model.keras", "device/model.keras"),
    *("functions/model.keras", "resized/model.keras", "padded/model.keras"),
]
FROZEN = [name for name in CASES if (GOLDEN / name / "graph.npz").exists()]
FILES = [
    f"{name}/{made}.tflite" for name, case in CASES.items() for made in ("int8", *case.formats)
    if made != "c"
]  # fmt: skip
OTHERS = [path for path in FILES if not path.endswith("int8.tflite")]
# Kernel quantizers are made by an LSQQuantizeConfig; other methods came after the golden models.
GOLDEN_METHODS = ("lsq_quantizers", "lsq_plus", "fixed_grid")
OTHER_FACTS = ("input", "target", "resumed", runtime.LITERT, runtime.TFLM)
RUNTIMES = {"litert": runtime.LITERT, "tflm": runtime.TFLM}
C = [f"{name}/c" for name, case in CASES.items() if "c" in case.formats]


def case_of(path):
    return CASES[path.split("/")[0]]


def facts_of(path):
    return np.load(GOLDEN / path.split("/")[0] / "facts.npz")


def numbered(facts, kind):
    """The arrays called KIND/0, KIND/1, ..."""
    found = [name for name in facts if name.startswith(f"{kind}/")]
    return [facts[f"{kind}/{index}"] for index in range(len(found))]


def check_same(model, case, facts):
    """Settings, predictions, codes, steps and offsets as they were recorded."""
    check_recipe(model.recipe, make.full_recipe(case))
    now = make.facts(model, numbered(facts, "input"))
    recorded = [name for name in facts if name.split("/")[0] not in OTHER_FACTS]
    assert sum(name.startswith("codes/") for name in recorded) == len(kernel_sites(model))
    for name in recorded:
        if name.startswith("prediction/") and not on_grid(name, model, case):
            np.testing.assert_allclose(now[name], facts[name], rtol=0, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(now[name], facts[name], err_msg=name)


def check_recipe(recipe, expected):
    sign = recipe.unsigned_input  # which the calibration told
    assert recipe == dataclasses.replace(expected, unsigned_input=sign)


def on_grid(name, model, case):
    """Whether a prediction is made of integers. A softmax is not, and its last bits depend on the
    processor; to round it would change it by up to 0.002."""
    layer = model.outputs[int(name.split("/")[1])]._keras_history.layer
    return case.finalized and not layer.name.endswith("softmax")


@pytest.mark.parametrize("path", [*SAVED[::2], *slow(*SAVED[1::2])])
def test_a_model_loads_and_computes_the_same(path):
    check_same(tfbinreg.load_model(GOLDEN / path), case_of(path), facts_of(path))


@pytest.mark.slow
@pytest.mark.parametrize("path", SAVED)
def test_keras_loads_it_too(path):
    with tfbinreg.quantize_scope():
        model = keras.models.load_model(GOLDEN / path)
    check_same(model, case_of(path), facts_of(path))


def edited(path, folder, edit):
    """A copy of a .keras or .h5 file with another configuration, given and returned as text."""
    there = shutil.copy(GOLDEN / path, folder)
    if h5py.is_hdf5(there):
        with h5py.File(there, "a") as file:
            file.attrs["model_config"] = edit(file.attrs["model_config"])
        return there
    with zipfile.ZipFile(GOLDEN / path) as old, zipfile.ZipFile(there, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, edit(data.decode()) if name == "config.json" else data)
    return there


@pytest.mark.parametrize("path", MOVED)
def test_the_modules_may_lie_elsewhere(path, tmp_path):
    def moved(config):
        assert '"module": "tfbinreg.' in config
        return config.replace('"module": "tfbinreg.', '"module": "nowhere.')

    there = edited(path, tmp_path, moved)
    check_same(tfbinreg.load_model(there), case_of(path), facts_of(path))


def test_every_registered_class_is_in_a_saved_model(tmp_path):
    texts = []
    for path in MOVED:
        edited(path, tmp_path, lambda config: texts.append(config) or config)
    named = set(re.findall(r"tfbinreg>\w+", " ".join(texts)))
    known = {
        name
        for name, kind in keras.saving.get_custom_objects().items()
        if name.startswith("tfbinreg>")
        and (".methods." not in kind.__module__ or kind.__module__.endswith(GOLDEN_METHODS))
    }
    assert named == known - {"tfbinreg>LSQWeightQuantizer"}


@pytest.mark.parametrize("path", [WEIGHTS[0], *slow(*WEIGHTS[1:])])
def test_weights_alone_make_the_same_model(path):
    case, facts = case_of(path), facts_of(path)
    model = make.quantized(case, case.net())
    if path in WITH_OPTIMIZER:
        model.compile(case.optimizer(), "mse")
        model.optimizer.build(model.trainable_variables)
    model.load_weights(GOLDEN / path)
    check_same(model, case, facts)
    if path in WITH_OPTIMIZER:
        check_resumed(model, facts)


@pytest.mark.parametrize("path", [*COMPILED[::3], *slow(*COMPILED[1::3], *COMPILED[2::3])])
def test_training_goes_on_to_the_same_weights(path):
    # On one core sums have another order, and an activation of this net is near a threshold. An
    # optimizer without its state is 0.028 away.
    one_core = len(os.sched_getaffinity(0)) == 1
    atol = 0.003 if one_core and path.startswith("resized") else 1e-6
    check_resumed(tfbinreg.load_model(GOLDEN / path), facts_of(path), atol)


def check_resumed(model, facts, atol=1e-6):
    """Two steps more give the weights that were recorded."""
    make.train(model, numbered(facts, "input"), numbered(facts, "target"))
    recorded = {name for name in facts if name.startswith("resumed/")}
    now = {f"resumed/{weight.name}": weight.numpy() for weight in model.weights}
    assert recorded <= set(now)
    for name in recorded:
        np.testing.assert_allclose(now[name], facts[name], rtol=1e-6, atol=atol, err_msg=name)


@pytest.mark.slow
def test_a_folder_trains_like_the_file_once_it_is_compiled():
    facts, trained = facts_of("dense"), []
    for name in CASES["dense"].models:
        model = tfbinreg.load_model(GOLDEN / "dense" / name)
        model.compile(keras.optimizers.SGD(0.01, 0.9), "mse")
        before = model.get_weights()
        make.train(model, numbered(facts, "input"), numbered(facts, "target"))
        trained.append(model.get_weights())
        assert any(np.any(a != b) for a, b in zip(before, trained[-1], strict=True))
    for ours, theirs in zip(*trained, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SOME)
def test_a_new_file_computes_what_the_old_one_did(name):
    model = load(name)
    for data in (canonical(name), tfbinreg.to_tflite(model)):
        for own in (runtime.LITERT, runtime.TFLM):
            check_outputs(runtime.run(*fed(data, name), runtime=own).outputs, name, own)


@functools.cache
def load(name):
    return tfbinreg.load_model(GOLDEN / name / CASES[name].models[0])


def canonical(name):
    return (GOLDEN / name / "int8.tflite").read_bytes()


def fed(data, name):
    """A file, read, and the recorded inputs as it takes them."""
    file, inputs = models.load(data), numbered(facts_of(name), "input")
    return file, samples.stored(file, dict(zip(samples.input_names(file), inputs, strict=True)))


def check_outputs(outputs, name, own):
    for ours, theirs in zip(outputs, numbered(facts_of(name), own), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("path", [*OTHERS[::2], *slow(*OTHERS[1::2])])
def test_other_formats_compute_what_they_did(path):
    name, data = path.split("/")[0], (GOLDEN / path).read_bytes()
    outputs = runtime.run(*fed(data, name), runtime=runtime.TFLM).outputs
    check_outputs(outputs, name, runtime.TFLM)


@pytest.mark.parametrize("path", C)
def test_c_computes_what_it_did(path):
    name = path.split("/")[0]
    files = source_folder.read(GOLDEN / path).files
    check_outputs(host_run.run(files, *fed(canonical(name), name), flags=()), name, runtime.TFLM)


def frozen_graph(name):
    return FrozenGraph.from_bytes((GOLDEN / name / "graph.npz").read_bytes())


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_graph_computes_what_its_model_did(name):
    graph, facts = frozen_graph(name), facts_of(name)
    outputs = IntegerModel(graph, ARITHMETICS[graph.target])(
        [tf.constant(array) for array in numbered(facts, "input")]
    )
    stored = numbered(facts, RUNTIMES[graph.target])
    for index, ours, theirs in zip(graph.outputs, outputs, stored, strict=True):
        grid = graph.ops[index].grid
        values = grid.scale * (theirs.astype(np.float32) - grid.zero_point)
        np.testing.assert_allclose(ours, values, rtol=1e-6, atol=0)


# Byte for byte: what the writers of today wrote. Whoever changes one on purpose takes its case out
# here; the tests above go on to hold codes and outputs. Since then equal things are stored once.


def shared(data):
    """The same file with everything equal stored once, and without a card: both came later."""
    file = flatbuffer.read(data)
    if file.metadata is not None:
        others = [m for m in file.metadata if flatbuffer.text(m.name) != card.METADATA_NAME]
        file.metadata = others
    flatbuffer.drop_unused_buffers(file)
    return flatbuffer.write(file)


@pytest.mark.parametrize("name", FROZEN)
def test_the_int8_file_is_written_byte_for_byte(name):
    graph, now = frozen_graph(name), freeze(load(name))
    wanted = shared(canonical(name))
    assert shared(tflite_file.write(graph)) == wanted
    # Which the manifest quotes.
    quoted = {"recipe": graph.recipe, "versions": graph.versions}
    assert shared(tflite_file.write(dataclasses.replace(now, **quoted))) == wanted


@pytest.mark.parametrize("name", FROZEN)
def test_other_formats_are_written_byte_for_byte(name):
    for path, content in make.formats(CASES[name], canonical(name)).items():
        stored = (GOLDEN / name / path).read_bytes()
        assert content == (shared(stored) if path.endswith(".tflite") else stored), path


@pytest.mark.parametrize("name", FROZEN)
def test_a_recipe_is_read(name):
    check_recipe(tfbinreg.Recipe.from_data(GOLDEN / name / "recipe.json"), CASES[name].recipe)


# `device` has folded kernels, whose steps start from the quantized model's statistics since then.
@pytest.mark.slow  # its last bits depend on the processor
@pytest.mark.parametrize("name", [name for name in FROZEN if name != "device"])
def test_quantizing_and_training_anew_makes_the_same_model(name):
    case = CASES[name]
    keras.backend.clear_session()  # Keras numbers the names it gives
    check_same(make.trained(case)[0], case, facts_of(name))


@pytest.fixture
def command(capsys):
    """Runs a command line that succeeds; returns what it prints."""

    def run(*arguments):
        code = cli.main(parse(["tflite_tools", *map(str, arguments)]))
        printed = capsys.readouterr()
        assert code == 0, printed.out + printed.err
        return printed.out

    return run


def verdicts(printed):
    return dict(re.findall(r"^(\w+) +(passed|warning|failed|skipped)\b", printed, re.MULTILINE))


@pytest.mark.parametrize("name", SOME)
def test_the_file_verifies_against_the_model(name, command):
    folder = GOLDEN / name
    told = command("verify", folder / "int8.tflite", "--reference", folder / CASES[name].models[0])
    passed = {check for check, verdict in verdicts(told).items() if verdict == "passed"}
    assert {"codes", "integer", "levels", "layers", "agreement"} <= passed


@pytest.mark.parametrize("path", [*OTHERS[::3], *slow(*OTHERS[1::3], *OTHERS[2::3], *C[1:]), C[0]])
def test_other_formats_verify_against_the_canonical_file(path, command):
    canonical = (GOLDEN / path).with_name("int8.tflite")
    told = verdicts(command("verify", GOLDEN / path, "--canonical", canonical))
    assert told["codes"] == told["tflm"] == "passed"


@pytest.mark.parametrize("path", FILES)
def test_files_can_be_inspected(path, command):
    assert "FULLY_CONNECTED" in command("inspect", GOLDEN / path)
