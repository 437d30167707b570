"""The runtimes' differences are found by name, and only where they are."""

import numpy as np
import pytest

from tflite_tools.checks import rounding
from tflite_tools.running import runtime, samples


@pytest.fixture(scope="module")
def inputs(two_bits):
    return samples.stored(two_bits, samples.seeded(two_bits, samples=8, seed=0))


@pytest.fixture
def needs_tflm():
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")


def test_every_activation_is_compared(two_bits, inputs, needs_tflm):
    found = rounding.measure(two_bits, inputs)
    assert (found.samples, found.skipped) == (8, "")
    names = [row.tensor for row in found.rows]
    assert names == [two_bits.main.made(op)[0].name for op in two_bits.main.ops]
    assert all(row.mean_lsb <= row.max_lsb and 0 <= row.different <= 1 for row in found.rows)


def test_equal_runtimes_do_not_differ_and_others_do(two_bits, inputs, monkeypatch, needs_tflm):
    def run(model, arrays, *, runtime, own=runtime.run, **options):
        made = own(model, arrays, runtime="TFLM", **options)
        made.outputs[1][0, 0, 0, :2] ^= int(runtime == "LiteRT")  # two values off by one level
        return made

    monkeypatch.setattr(runtime, "run", run)
    found = rounding.measure(two_bits, inputs)
    wrong = [row for row in found.rows if row.max_lsb]
    assert wrong == [found.rows[1]]
    values = 8 * 8 * 8 * 64
    assert (wrong[0].max_lsb, wrong[0].different) == (1.0, 2 / values)
    assert wrong[0].mean_lsb == pytest.approx(2 / values)


def test_exposed_activations_are_what_the_file_computes(two_bits, inputs):
    exposed = runtime.run(rounding.expose(two_bits), inputs).outputs
    whole = runtime.run(two_bits, inputs).outputs
    np.testing.assert_array_equal(exposed[-1], whole[0])


def test_samples_are_bounded_by_memory(two_bits, inputs, monkeypatch, needs_tflm):
    monkeypatch.setattr(rounding, "MOST_BYTES", 1)
    assert rounding.measure(two_bits, inputs).samples == 1


def test_without_tflm_or_a_run_the_reason_is_kept(two_bits, inputs, monkeypatch, needs_tflm):
    def fail(*_, **__):
        raise runtime.RuntimeFailedError("LiteRT crashed on the file.")

    monkeypatch.setattr(runtime, "run", fail)
    assert rounding.measure(two_bits, inputs).skipped == "LiteRT crashed on the file."
    monkeypatch.setattr(runtime, "available", lambda name: False)
    assert "TFLM is not installed" in rounding.measure(two_bits, inputs).skipped


def test_files_that_cannot_be_exposed(float_file, edit, two_bits):
    with pytest.raises(ValueError, match="computes no int8 activations"):
        rounding.expose(float_file)

    def twice(container):
        container.subgraphs.append(container.subgraphs[0])

    with pytest.raises(ValueError, match="several subgraphs"):
        rounding.expose(edit(two_bits, twice))
