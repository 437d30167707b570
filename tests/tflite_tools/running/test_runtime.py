"""Interpreters in a process of their own."""

import dataclasses
import os

import numpy as np
import pytest

from tflite_tools.formats import lut
from tflite_tools.running import runtime, samples, worker
from tflite_tools.schema.contents import Quantization

GRID = Quantization(np.array([0.5], np.float32), np.array([3]), 0)


def test_rounding_is_half_up():
    values = np.array([-0.75, -0.25, 0.0, 0.24, 0.25, 0.75, 1e9, -1e9])
    stored = runtime.quantize(values, GRID, np.int8)
    assert stored.tolist() == [2, 3, 3, 3, 4, 5, 127, -128]
    assert runtime.dequantize(np.array([3, 5, -128], np.int8), GRID).tolist() == [0, 1, -65.5]


def _seeded(model, count=3):
    return samples.stored(model, samples.seeded(model, samples=count, seed=0))


@pytest.mark.parametrize("name", [runtime.LITERT, runtime.TFLM])
def test_samples_run_one_by_one(int8_file, name):
    if not runtime.available(name):
        pytest.skip(f"{name} is not installed")
    inputs = _seeded(int8_file)
    together = runtime.run(int8_file, inputs, runtime=name).outputs[0]
    alone = runtime.run(int8_file, [inputs[0][1:2]], runtime=name).outputs[0]
    assert together.shape == (3, 3)
    assert together.dtype == np.int8
    np.testing.assert_array_equal(together[1:2], alone)


def test_watched_tensors_are_counted(int8_file):
    inputs = _seeded(int8_file)
    index = int8_file.main.inputs[0]
    seen = runtime.run(int8_file, inputs, watched=[index]).seen[index]
    expected = np.bincount(inputs[0].reshape(-1).astype(int) + 128, minlength=256)
    np.testing.assert_array_equal(seen, expected)


def test_a_refused_file_is_an_error_with_the_reason(int8_file, edit):
    def damage(container):
        container.subgraphs[0].operators[0].builtinOptions.strideH = -3

    damaged = edit(int8_file, damage)
    inputs = _seeded(damaged)
    with pytest.raises(runtime.RuntimeFailedError, match="LiteRT cannot run the file"):
        runtime.run(damaged, inputs)


def test_a_crash_is_an_error():
    error = runtime._failure("LiteRT", -11, "")
    assert str(error) == "LiteRT crashed on the file (SIGSEGV)."


def test_a_missing_operator_is_told_apart():
    error = runtime._failure("TFLM", worker.FAILED, "Didn't find op for builtin opcode 'GELU'\nx")
    assert isinstance(error, runtime.MissingOpError)
    assert str(error) == "TFLM has no operator GELU."


def test_a_run_that_takes_too_long_is_stopped(int8_file):
    inputs = _seeded(int8_file)
    with pytest.raises(runtime.RuntimeFailedError, match=r"within 0\.01 seconds"):
        runtime.run(int8_file, inputs, time_limit=0.01)


def test_huge_tensors_are_refused_before_the_run(int8_file, edit, tensor_of):
    def damage(container):
        tensor_of(container, "pool").shape = np.array([1, 2**20, 2**20, 4], np.int32)

    damaged = edit(int8_file, damage)
    inputs = _seeded(damaged)
    with pytest.raises(runtime.RuntimeFailedError, match="GiB"):
        runtime.run(damaged, inputs)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([], "has 1 inputs, got 0"),
        ([np.zeros((2, 8, 8, 3), np.float32)], "int8"),
        ([np.zeros((2, 8, 8, 1), np.int8)], r"\(8, 8, 3\) for a sample"),
        ([np.zeros((0, 8, 8, 3), np.int8)], "0 samples"),
    ],
)
def test_inputs_must_fit(int8_file, arrays, message):
    with pytest.raises(ValueError, match=message):
        runtime.run(int8_file, arrays)


needs_tflm = pytest.mark.skipif(
    not runtime.available(runtime.TFLM), reason="tflite_micro is not installed"
)


@needs_tflm
class TestLeastArena:
    def test_it_is_enough_and_16_bytes_less_are_not(self, int8_file):
        inputs = _seeded(int8_file, 1)
        least = runtime.least_arena(int8_file)
        job = dataclasses.replace(runtime._job(int8_file, runtime.TFLM, inputs), arena=least)
        expected = runtime.run(int8_file, inputs, runtime=runtime.TFLM).outputs
        assert worker._enough(int8_file.data, job, inputs, expected)
        assert not worker._enough(
            int8_file.data, dataclasses.replace(job, arena=least - 16), inputs, expected
        )

    @pytest.mark.parametrize(
        "way", ["os.kill(os.getpid(), 9)", "raise RuntimeError", "other outputs"]
    )
    @pytest.mark.slow
    def test_a_crash_below_what_is_needed_is_too_little(self, monkeypatch, way):
        """TFLM refuses, crashes or computes something else, depending on the size."""

        class Interpreter:
            def __init__(self, data, job):
                self._arena = job.arena

            def __call__(self, inputs):
                enough = self._arena >= 4000
                if not enough and way != "other outputs":
                    exec(way, {"os": os})
                return [inputs[0] if enough else inputs[0] + 1]

        monkeypatch.setattr(worker, "TFLM", Interpreter)
        job = worker.Job("TFLM", 1, 1, (), arena=100_000, memory=0)
        assert worker.least_arena(b"", job, [np.zeros(3)]) == 4000

    def test_a_crash_with_ample_memory_is_an_error(self, int8_file, monkeypatch):
        ample = worker.Job("TFLM", 1, 1, (), arena=64, memory=2**33)  # here TFLM crashes
        monkeypatch.setattr(runtime, "_job", lambda *_: ample)
        with pytest.raises(runtime.RuntimeFailedError, match=r"TFLM crashed on the file \(SIG"):
            runtime.least_arena(int8_file)

    def test_tables_of_two_inputs(self, two_inputs):
        """Of this file TFLM's preparation crashes at most sizes that are too small."""
        made = lut.convert(two_inputs)
        assert 4096 < made.figures["arena_bytes"] < 65536
