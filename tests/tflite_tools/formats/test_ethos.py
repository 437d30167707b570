"""The Ethos-U compiler, a stand-in where it is not installed."""

import sys

import pytest

from tflite_tools.formats import ethos, int4, lut

SUMMARY = "total_npu_encoded_weights,sram_memory_used,off_chip_flash_memory_used\n9000,2.5,8\n"
needs_vela = pytest.mark.skipif(ethos.find() is None, reason="Vela is not installed")


@pytest.fixture
def vela(tmp_path):
    """vela(lines): path of a program that runs `lines` of Python with `out` and `model` known."""

    def make(*lines):
        path = tmp_path / "vela"
        start = (
            "import os, pathlib, shutil, sys, time",
            "model, out = sys.argv[1], pathlib.Path(sys.argv[3])",
            "out.mkdir()",
        )
        path.write_text("\n".join([f"#!{sys.executable}", *start, *lines]))
        path.chmod(0o755)
        return str(path)

    return make


COPY = "shutil.copy(model, out / 'model_vela.tflite')"
TABLE = f"(out / 'model_summary_x.csv').write_text({SUMMARY!r})"


def test_figures_and_operators_on_the_cpu(two_bits, vela):
    made = ethos.compile_model(two_bits, vela=vela(COPY, TABLE))
    assert made.model.data == two_bits.data
    assert made.weight_bytes == 9000
    assert made.bits_per_weight == pytest.approx(8 * 9000 / made.weights)
    assert (made.sram_bytes, made.flash_bytes) == (2560, 8192)
    assert "CONV_2D conv" in made.cpu_ops  # the stand-in compiles nothing


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["print('first'); sys.exit('no such operator')"], "cannot compile the file: no such op"),
        (["sys.exit(3)"], "cannot compile the file: exit code 3"),
        (["os.kill(os.getpid(), 8)"], "crashed on the file .SIGFPE"),
        (["time.sleep(60)"], "did not finish within 1 seconds"),
        ([COPY], "no summary that can be read"),
    ],
)
def test_failures_are_said(two_bits, vela, lines, message):
    with pytest.raises(RuntimeError, match=message):
        ethos.compile_model(two_bits, vela=vela(*lines), time_limit=1)


def test_a_missing_result_is_said(two_bits, vela):
    with pytest.raises(ValueError, match="Cannot read"):
        ethos.compile_model(two_bits, vela=vela(TABLE))


def test_a_missing_program_is_said(two_bits, monkeypatch):
    monkeypatch.setattr(ethos, "find", lambda: None)
    with pytest.raises(RuntimeError, match="pip install ethos-u-vela"):
        ethos.compile_model(two_bits)
    with pytest.raises(RuntimeError, match="cannot be started: No such file"):
        ethos.compile_model(two_bits, vela="/missing/vela")


def test_packed_weights_and_strange_accelerators_are_refused(two_bits, vela):
    program = vela(COPY, TABLE)
    with pytest.raises(ValueError, match="pointwise: Vela crashes on INT4 weights"):
        ethos.compile_model(int4.convert(two_bits).model, vela=program)
    with pytest.raises(ValueError, match="pointwise/kernel: Vela cannot take decoded weights"):
        ethos.compile_model(lut.convert(two_bits).model, vela=program)
    with pytest.raises(ValueError, match="accelerator must be one of"):
        ethos.compile_model(two_bits, accelerator="ethos-u1", vela=program)


@needs_vela
@pytest.mark.parametrize(("bits", "most"), [(2, 3.0), (4, 4.6)])
def test_vela_compresses_low_bit_weights(canonical, bits, most):
    made = ethos.compile_model(canonical(bits, True))
    assert made.cpu_ops == ()
    assert made.bits_per_weight < most  # with the biases and scales that Vela packs among them
