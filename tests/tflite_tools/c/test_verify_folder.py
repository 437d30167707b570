"""Folders of C against their canonical file: right ones pass, broken ones fail by name."""

import pytest
from quick import slow

from tflite_tools.c import generate, host_run, verify_folder
from tflite_tools.c.source_folder import Folder
from tflite_tools.checks.agreement import Limits
from tflite_tools.checks.verdict import Verdict
from tflite_tools.running import runtime, samples

PASSED, WARNING = Verdict.PASSED, Verdict.WARNING
FAILED, SKIPPED = Verdict.FAILED, Verdict.SKIPPED


@pytest.fixture(scope="module")
def folder(two_bits):
    return Folder("net", generate.generate(two_bits, name="net").files)


@pytest.fixture
def can_run():
    if host_run.compiler() is None or not runtime.available(runtime.TFLM):
        pytest.skip("needs a C compiler and tflite_micro")


def changed(folder, file, old, new):
    text = folder.files[file]
    assert old in text
    return Folder(folder.name, {**folder.files, file: text.replace(old, new)})


def verdicts(report):
    return {check.name: check.verdict for check in report.checks}


def test_what_convert_writes_passes(folder, two_bits, can_run):
    report = verify_folder.verify_folder(folder, two_bits, samples_count=8)
    found = verdicts(report)
    # How far LiteRT's single rounding is from two depends on the net.
    assert found.pop("litert") in (PASSED, WARNING)
    assert found == dict.fromkeys(("codes", "sources", "operators", "tflm"), PASSED)
    assert "bit for bit TFLM's on 8 inputs" in report["tflm"].detail
    assert "round sums twice, LiteRT once" in report["litert"].detail


def test_a_wrong_kernel_fails_operators_and_outputs(folder, two_bits, can_run):
    rounding = "multiplier, offset + (twice >> 31)", "multiplier, (offset & 0)"
    broken = changed(folder, generate.RUNTIME_HEADER, *rounding)
    report = verify_folder.verify_folder(broken, two_bits, samples_count=8)
    assert verdicts(report) | {"litert": None} == {
        "codes": PASSED, "sources": WARNING, "operators": FAILED, "tflm": FAILED, "litert": None,
    }  # fmt: skip
    assert "conv" in report["operators"].layers
    assert report["tflm"].layers == ("head_softmax",)
    with pytest.raises(KeyError):
        report["proof"]


def test_the_form_for_dsp_instructions_is_compared_too(folder, two_bits, can_run):
    text = folder.files[generate.RUNTIME_HEADER]
    broken = Folder("net", {
        **folder.files,
        generate.RUNTIME_HEADER: f"{text}\n#ifdef TFBINREG_EMULATE_DSP\n#error no\n#endif\n",
    })  # fmt: skip
    report = verify_folder.verify_folder(broken, two_bits, samples_count=2)
    assert report["tflm"].verdict is PASSED
    assert report["operators"].verdict is FAILED


def test_kernels_that_are_called_in_another_way(folder, two_bits, can_run):
    older = changed(folder, generate.RUNTIME_HEADER, "#define TFB_CALLS", "#define OTHER")
    found = verdicts(verify_folder.verify_folder(older, two_bits, samples_count=2))
    assert found["operators"] is SKIPPED
    assert found["codes"] is found["tflm"] is PASSED


def test_another_networks_c_fails(folder, canonical):
    report = verify_folder.verify_folder(folder, canonical(2, False), samples_count=2)
    assert report["codes"].verdict is FAILED
    assert not report.passed


def test_the_sanitizers_find_a_read_beyond_an_array(folder, two_bits, can_run):
    if not host_run.sanitizers():
        pytest.skip("the compiler has no sanitizers")
    broken = changed(folder, "main.c", "net_run(input0", "net_run(input0 + 1")
    report = verify_folder.compare(broken, two_bits)
    assert report["tflm"].verdict is FAILED
    assert "AddressSanitizer" in report["tflm"].detail


def test_c_that_does_not_compile_fails(folder, two_bits, can_run):
    broken = changed(folder, "net.c", "void net_run(", "void net_run(int,")
    report = verify_folder.verify_folder(broken, two_bits, samples_count=2)
    assert report["tflm"].verdict is FAILED
    assert "refuses the generated C" in report["tflm"].detail
    assert report["litert"].verdict is SKIPPED
    assert not report.passed


def test_a_file_that_cannot_be_c_fails(folder, two_bits, monkeypatch):
    def refuse(model, **_):
        raise ValueError("Cannot write the file as C:\n  - reason")

    monkeypatch.setattr(generate, "generate", refuse)
    monkeypatch.setattr(host_run, "compiler", lambda: None)
    report = verify_folder.verify_folder(folder, two_bits, samples_count=2)
    assert report["sources"].verdict is FAILED
    assert report["sources"].detail == "Cannot write the file as C: - reason"


@pytest.mark.parametrize("missing", ["compiler", "TFLM", "both"])
def test_without_compiler_or_tflm_nothing_is_proven(folder, two_bits, monkeypatch, missing):
    reasons = []
    if missing != "TFLM":
        monkeypatch.setattr(host_run, "compiler", lambda: None)
        reasons.append("no C compiler")
    if missing != "compiler":
        monkeypatch.setattr(runtime, "available", lambda name: name != runtime.TFLM)
        reasons.append("TFLM is not installed")
    elif not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")
    if missing == "TFLM" and host_run.compiler() is None:
        pytest.skip("no C compiler")
    report = verify_folder.verify_folder(folder, two_bits, samples_count=2)
    for name in ("operators", "tflm"):
        assert report[name].verdict is SKIPPED
        assert all(reason in report[name].detail for reason in reasons)
    assert report["litert"].verdict is (PASSED if missing == "TFLM" else SKIPPED)
    assert report["proof"].verdict is FAILED
    assert "nothing was proven" in report["proof"].detail
    assert not report.passed


@pytest.mark.slow
def test_limits_decide_about_litert(folder, two_bits, can_run, monkeypatch):
    broken = changed(folder, "main.c", "net_run(input0, output0)", "(void)input0")
    report = verify_folder.verify_folder(broken, two_bits, samples_count=8)
    assert report["litert"].verdict is WARNING  # of this, "tflm" decides
    exact = Limits(min_top1=1.0, max_mean_lsb=0.0)
    report = verify_folder.verify_folder(broken, two_bits, samples_count=8, limits=exact)
    assert report["litert"].verdict is FAILED


def test_wrong_inputs_and_files_are_errors(folder, two_bits, float_file):
    with pytest.raises(ValueError, match="got 0 arrays"):
        verify_folder.verify_folder(folder, two_bits, inputs=[])
    with pytest.raises(ValueError, match="no tfbinreg manifest"):
        verify_folder.verify_folder(folder, float_file)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("for (;;) {}", "did not finish within 2 seconds"),
        ('for (;;) fputs("0123456789abcdef", stdout);', "it wrote more than it may"),
        ("for (;;) *(volatile int *)calloc(1 << 12, 4) = 1;", "SIG|rss limit"),
        ('return getenv("HOME") == NULL ? 7 : 0;', "exit code 7"),
    ],
)
@pytest.mark.parametrize("flags", [host_run.SANITIZERS, *slow(())])
@pytest.mark.slow
def test_a_program_is_bounded(folder, two_bits, can_run, body, why, flags):
    """Time, output and memory; and it sees nothing of the environment."""
    head = "/* tflite_tools */\n#include <stdio.h>\n#include <stdlib.h>\n"
    program = {"main.c": f"{head}int main(void) {{ {body} }}\n"}
    inputs = samples.stored(two_bits, samples.seeded(two_bits, samples=1, seed=0))
    limit = 2 if "finish" in why else 100
    with pytest.raises(host_run.CompilerError, match=why):
        host_run.run({**folder.files, **program}, two_bits, inputs, flags=flags, time_limit=limit)
