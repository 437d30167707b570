"""C that takes frames, run for whole samples and compared with its file."""

import numpy as np
import pytest
import sequence_nets
from file_maker import samples

from tflite_tools.c import generate, host_run, stream_run, verify_folder
from tflite_tools.c.host_run import CompilerError
from tflite_tools.c.source_folder import Folder
from tflite_tools.checks.verdict import Verdict
from tflite_tools.running import runtime

PASSED, FAILED = Verdict.PASSED, Verdict.FAILED


@pytest.fixture(scope="module")
def model():
    return sequence_nets.window()


@pytest.fixture(scope="module")
def folder(model):
    return Folder("net", generate.generate(model, name="net", streaming=True).files)


@pytest.fixture
def can_run(needs_compiler):
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")


def test_what_takes_frames(folder, model):
    assert folder.streaming
    assert stream_run.takes_frames(folder.files)
    whole = Folder("net", generate.generate(model, name="net").files)
    assert not whole.streaming
    assert not stream_run.takes_frames(whole.files)


@pytest.mark.slow
def test_all_checks_of_verify(folder, model, can_run):
    report = verify_folder.verify_folder(folder, model, samples_count=4)
    found = {check.name: check.verdict for check in report.checks}
    assert found.pop("litert") in (PASSED, Verdict.WARNING)
    assert found == dict.fromkeys(("codes", "sources", "operators", "tflm"), PASSED)


def test_verify_finds_a_broken_weight(folder, model, can_run):
    report = verify_folder.compare(folder, model)
    assert [check.verdict for check in report.checks] == [PASSED, PASSED]
    source = folder.files["net.c"]
    place = source.index("static const uint8_t weights_")
    brace = source.index("{", place) + 1
    broken = source[:brace] + source[brace:].replace(source[brace:].split(",")[0].strip(), "0", 1)
    assert broken != source
    report = verify_folder.compare(Folder("net", {**folder.files, "net.c": broken}), model)
    assert [check.verdict for check in report.checks] == [FAILED, FAILED]


def test_a_network_that_forgets_a_row_fails(folder, model, can_run):
    source = folder.files["net.c"]
    broken = source.replace("tfb_shift_in(state", "(void)(state", 1)
    assert broken != source
    made = Folder("net", {**folder.files, "net.c": broken})
    report = verify_folder.compare(made, model)
    assert [check.verdict for check in report.checks] == [PASSED, FAILED]


def test_a_reset_forgets_everything(folder, model, needs_compiler):
    """After any frames, and in turn with another sequence, a state begins as a new one does."""
    (sequences,) = samples(model, 1)
    frames = stream_run.frames_of([sequences[0]])
    other = """  static net_state second;
  for (int k = 0; k < 33; k++) {
    for (int i = 0; i < NET_INPUT_0_SIZE; i++) input0[i] = (int8_t)(7 * k + i);
    net_push(&state, input0, output0);
  }
  net_reset(&second);
  net_reset(&state);
  for (;;) {"""
    pushed = "    net_push(&second, input0, output0);\n    if (!net_push(&state"
    program = folder.files["main.c"].replace("  for (;;) {", other)
    program = program.replace("    if (!net_push(&state", pushed)
    sources = {**folder.files, "main.c": program}
    assert program.count("net_push") == 3
    fresh, used = (
        host_run.run_frames(own, [frames], 4, flags=host_run.sanitizers())[0]
        for own in (folder.files, sources)
    )
    assert len(fresh) == 1
    assert np.array_equal(fresh, used)


def test_outputs_that_are_missing(folder, model, needs_compiler):
    inputs = samples(model, 2)
    late = {
        **folder.files,
        "net.c": folder.files["net.c"].replace("return frame >=", "return 0 &&"),
    }
    with pytest.raises(CompilerError, match="fewer than 1 rows"):
        stream_run.run(late, model, inputs, flags=())
    with pytest.raises(CompilerError, match="values in rows of 3"):
        frames = stream_run.frames_of([inputs[0][0]])
        host_run.run_frames(folder.files, [frames], 3, flags=())


def test_a_program_that_fails(folder, model, needs_compiler):
    program = folder.files["main.c"].replace("for (;;) {", "for (;;) { return 3;")
    frames = np.zeros((2, 3), np.int8)
    with pytest.raises(CompilerError, match="The program failed: exit code 3"):
        host_run.run_frames({**folder.files, "main.c": program}, [frames], 4, flags=())
