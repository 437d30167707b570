"""Models and files that version 0.1.0 made: they load, predict, resume and verify as they did."""

import pathlib
import re

import numpy as np
import pytest
import tf_keras as keras
from golden import make

import tfbinreg
from tfbinreg.sites import kernel_sites
from tflite_tools import cli, runtime, samples
from tflite_tools import model as models
from tflite_tools.arguments import parse

GOLDEN = pathlib.Path(__file__).parent / "golden"
CASES = make.CASES
SAVED = [f"{name}/{path}" for name, case in CASES.items() for path in case.models]
COMPILED = [path for path in SAVED if CASES[path.split("/")[0]].optimizer is not None]
WEIGHTS = [name for name, case in CASES.items() if case.weights]
FILES = [
    f"{name}/{made}.tflite" for name, case in CASES.items() for made in ("int8", *case.formats)
    if made != "c"
]  # fmt: skip
OTHER_FACTS = ("input", "target", "resumed", runtime.LITERT, runtime.TFLM)
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
    """Predictions, codes, steps and offsets as they were recorded."""
    now = make.facts(model, numbered(facts, "input"))
    recorded = [name for name in facts if name.split("/")[0] not in OTHER_FACTS]
    assert sum(name.startswith("codes/") for name in recorded) == len(kernel_sites(model))
    for name in recorded:
        if name.startswith("prediction/") and not on_grid(name, model, case):
            np.testing.assert_allclose(now[name], facts[name], rtol=0, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(now[name], facts[name], err_msg=name)


def on_grid(name, model, case):
    """Whether a prediction is made of integers. A softmax is not, and its last bits depend on the
    processor; to round it would change it by up to 0.002."""
    softmax = model.output_names[int(name.split("/")[1])].endswith("softmax")
    return case.finalized and not softmax


@pytest.mark.parametrize("path", SAVED)
def test_a_model_loads_and_computes_the_same(path):
    check_same(tfbinreg.load_model(GOLDEN / path), case_of(path), facts_of(path))


@pytest.mark.parametrize("path", SAVED)
def test_keras_loads_it_too(path):
    with tfbinreg.quantize_scope():
        model = keras.models.load_model(GOLDEN / path)
    check_same(model, case_of(path), facts_of(path))


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_alone_make_the_same_model(name):
    case = CASES[name]
    model = tfbinreg.quantize_apply(case.net(), case.recipe)
    model.load_weights(GOLDEN / name / "weights.h5")
    check_same(model, case, facts_of(name))


@pytest.mark.parametrize("path", COMPILED)
def test_training_goes_on_to_the_same_weights(path):
    facts, model = facts_of(path), tfbinreg.load_model(GOLDEN / path)
    make.train(model, numbered(facts, "input"), numbered(facts, "target"))
    recorded = {name for name in facts if name.startswith("resumed/")}
    now = {f"resumed/{weight.name}": weight.numpy() for weight in model.weights}
    assert recorded <= set(now)
    for name in recorded:
        np.testing.assert_allclose(now[name], facts[name], rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_a_new_file_computes_what_the_old_one_did(name):
    facts = facts_of(name)
    model = tfbinreg.load_model(GOLDEN / name / "model.keras")
    for data in ((GOLDEN / name / "int8.tflite").read_bytes(), tfbinreg.to_tflite(model)):
        file, inputs = models.load(data), numbered(facts, "input")
        stored = samples.stored(file, dict(zip(samples.input_names(file), inputs, strict=True)))
        for own in (runtime.LITERT, runtime.TFLM):
            outputs = runtime.run(data, file, stored, runtime=own).outputs
            for ours, theirs in zip(outputs, numbered(facts, own), strict=True):
                np.testing.assert_array_equal(ours, theirs)


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


@pytest.mark.parametrize("name", CASES)
def test_the_file_verifies_against_the_model(name, command):
    folder = GOLDEN / name
    told = command("verify", folder / "int8.tflite", "--reference", folder / "model.keras")
    passed = {check for check, verdict in verdicts(told).items() if verdict == "passed"}
    assert {"codes", "integer", "levels", "layers", "agreement"} <= passed


@pytest.mark.parametrize("path", [path for path in FILES if not path.endswith("int8.tflite")] + C)
def test_other_formats_verify_against_the_canonical_file(path, command):
    canonical = (GOLDEN / path).with_name("int8.tflite")
    told = verdicts(command("verify", GOLDEN / path, "--canonical", canonical))
    assert told["codes"] == told["tflm"] == "passed"


@pytest.mark.parametrize("path", FILES)
def test_files_can_be_inspected(path, command):
    assert "FULLY_CONNECTED" in command("inspect", GOLDEN / path)
