"""What a file costs: figures, and reasons for those that are missing."""

import json

import numpy as np
import pytest

from tflite_tools.c import boards, host_run, host_size
from tflite_tools.formats import lut, slim
from tflite_tools.reports import bench
from tflite_tools.running import runtime, samples, worker

FAST = {"warm_up": 1, "runs": 3}


def measured(model, **options):
    inputs = samples.stored(model, samples.seeded(model, samples=1, seed=0))
    return bench.benchmark(model, inputs, **{**FAST, **options})


@pytest.fixture
def needs_tflm():
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")


@pytest.fixture
def needs_tools():
    if host_size.missing():
        pytest.skip("no C compiler, or no binutils")


def test_the_canonical_file_has_every_figure(two_bits, needs_tflm, needs_tools):
    found = measured(two_bits, threads=(1, 2))
    assert found.size == len(two_bits.data)
    assert [(latency.threads, latency.runs) for latency in found.latencies] == [(1, 3), (2, 3)]
    assert found.arena_bytes % 16 == 0
    assert 0 < found.generated.arena_bytes < found.arena_bytes
    (host,) = [build for build in found.generated.builds if build.target == host_size.target()]
    generated = found.generated
    assert host.rodata >= generated.packed_weight_bytes + generated.constant_bytes
    assert host.bss >= generated.arena_bytes
    assert host.text > 0
    assert not {bench.LATENCY, bench.ARENA, bench.C} & set(found.not_measured)


def test_latency_is_of_the_timed_runs_alone(int8_file, monkeypatch):
    seconds = np.array([4.0, 1.0, 3.0, 2.0, 5.0])
    monkeypatch.setattr(runtime, "seconds", lambda *_, **options: seconds / options["threads"])
    first, second = measured(int8_file, threads=(1, 2)).latencies
    assert first == bench.Latency(1, 5, 3000.0, 2000.0, 4000.0, 1000.0)
    assert second == bench.Latency(2, 5, 1500.0, 1000.0, 2000.0, 500.0)


class Interpreter(worker.LiteRT):
    """Counts its runs."""

    def __init__(self, calls):
        self._interpreter, self._inputs = self, [7]
        self._calls = calls

    def set_tensor(self, index, value):
        self._calls.append(("set", index, value))

    def invoke(self):
        self._calls.append("invoke")


def test_inputs_are_set_once_and_every_run_is_timed():
    calls = []
    seconds = Interpreter(calls).seconds([5], warm_up=2, timed=3)
    assert calls == [("set", 7, 5), *5 * ["invoke"]]
    assert seconds.shape == (3,)
    assert np.all(seconds >= 0)


def test_tables_have_no_latency(two_bits, needs_tflm):
    found = measured(lut.encode(two_bits)[0])
    assert found.latencies == ()
    assert found.arena_bytes > 0
    assert found.generated is None
    assert "only TFLM decodes" in found.not_measured[bench.LATENCY]
    assert "packed already" in found.not_measured[bench.C]


def test_slim_and_float_files_are_no_c(two_bits, float_io_file, needs_tflm):
    slimmed = measured(slim.encode(two_bits)[0])
    assert len(slimmed.latencies) == 1
    assert "no tfbinreg manifest" in slimmed.not_measured[bench.C]
    assert "convert with input_type='int8'" in measured(float_io_file).not_measured[bench.C]


def test_what_litert_refuses_is_told(int8_file, monkeypatch, needs_tflm):
    def refuse(*_, **__):
        raise runtime.RuntimeFailedError("LiteRT cannot run the file: no")

    monkeypatch.setattr(runtime, "seconds", refuse)
    assert measured(int8_file).not_measured[bench.LATENCY] == "LiteRT cannot run the file: no"


def test_missing_tools_are_named(int8_file, monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda name: False)
    monkeypatch.setattr(host_size, "missing", lambda: ("gcc", "binutils"))
    monkeypatch.setattr(boards, "missing", lambda cpus: ("qemu-system-arm",))
    found = measured(int8_file)
    assert found.arena_bytes is None
    assert "pip install tflite-micro, or 'tfbinreg[micro]'" in found.not_measured[bench.ARENA]
    reason = found.not_measured[f"C for {host_size.target()}"]
    assert reason == "not installed: apt-get install gcc binutils"
    reason = found.not_measured["C for cortex-m4"]
    assert reason == "not installed: apt-get install qemu-system-arm"
    assert found.generated.arena_bytes > 0
    assert found.generated.builds == ()


def test_a_file_that_nothing_runs_is_an_error(int8_file, edit, monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda name: False)  # TFLM

    def damage(container):
        container.subgraphs[0].operators[0].builtinOptions.strideH = -3

    with pytest.raises(ValueError, match="Neither LiteRT nor TFLM runs the file: LiteRT cannot"):
        measured(edit(int8_file, damage))


def test_inputs_must_fit(int8_file):
    with pytest.raises(ValueError, match="has 1 inputs, got 0"):
        bench.benchmark(int8_file, [])


def test_a_run_that_takes_too_long_is_told(int8_file, monkeypatch):
    monkeypatch.setattr(runtime, "least_arena", lambda *_, **__: 16)
    found = measured(int8_file, time_limit=0.01)
    assert "within 0.01 seconds" in found.not_measured[bench.LATENCY]


def test_instructions_are_counted_at_both_levels(two_bits, monkeypatch):
    def size(sources, *, cpu, flags):
        return boards.Sizes(1, 2, 3, 4)

    def run(sources, model, inputs, *, cpu, flags):
        assert cpu == "cortex-m4"
        assert [len(array) for array in inputs] == [1]
        return boards.DeviceRun((), {"-Os": 70, "-O2": 50}[flags[0]])

    monkeypatch.setattr(boards, "missing", lambda cpus: ())
    monkeypatch.setattr(boards, "size", size)
    monkeypatch.setattr(boards, "run", run)
    builds = {build.name: build for build in measured(two_bits).generated.builds}
    assert builds["cortex-m4 -Os"] == bench.Build("cortex-m4", "-Os", 1, 2, 3, 4, 70)
    assert builds["cortex-m4 -O2"].instructions == 50


def test_a_network_too_large_for_the_board_is_told(two_bits, monkeypatch):
    def refuse(*_, **__):
        raise host_run.CompilerError("The network does not fit\nthe board.")

    monkeypatch.setattr(boards, "missing", lambda cpus: ())
    monkeypatch.setattr(boards, "size", refuse)
    reason = measured(two_bits).not_measured["C for cortex-m4"]
    assert reason == "The network does not fit the board."


def test_the_emulator_counts(two_bits):
    if boards.missing([bench.DEVICE]):
        pytest.skip(f"not installed: {', '.join(boards.missing([bench.DEVICE]))}")
    small, fast = [b for b in measured(two_bits).generated.builds if b.target == "cortex-m4"]
    assert (small.level, fast.level) == ("-Os", "-O2")
    assert small.text < fast.text
    assert small.instructions > fast.instructions > 100_000


def test_a_compiler_that_refuses_is_an_error(int8_file, monkeypatch, tmp_path, needs_tools):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(host_run, "compiler", lambda: str(broken))
    with pytest.raises(host_run.CompilerError, match="no such flag"):
        measured(int8_file)


def test_command(command, two_bits, tmp_path, needs_tflm, needs_tools):
    path = tmp_path / "model.tflite"
    path.write_bytes(two_bits.data)
    flags = ["--threads", "1,2", "--warm-up", 0, "--runs", 2]
    code, out, err = command("benchmark", path, *flags)
    assert (code, err) == (0, "")
    assert f"file: {len(two_bits.data)} bytes" in out
    assert "median ms" in out
    assert "bytes of arena, with pointers of 8 bytes" in out
    assert "rodata" in out
    assert ("they are not time" in out) == (not boards.missing([bench.DEVICE]))
    code, out, err = command("benchmark", path, *flags, "--json")
    assert (code, err) == (0, "")
    fields = json.loads(out)
    assert [latency["threads"] for latency in fields["latencies"]] == [1, 2]
    assert fields["generated"]["packed_weight_bytes"] > 0


def test_progress_is_told(two_bits, monkeypatch):
    told = []
    monkeypatch.setattr(bench, "_latency", lambda *_: None)
    for name in ("_arena", "_generated"):
        monkeypatch.setattr(bench, name, lambda *_: None)
    bench.benchmark(two_bits, [], threads=(1, 2), advance=lambda *now: told.append(now))
    assert told == [
        (0.0, "LiteRT latency, threads: 1"),
        (0.25, "LiteRT latency, threads: 2"),
        (0.5, "TFLM arena"),
        (0.75, "C, compiled and run"),
    ]


def test_command_with_tables(command, two_bits, tmp_path, needs_tflm):
    path = tmp_path / "tables.tflite"
    path.write_bytes(lut.encode(two_bits)[0].data)
    code, out, _ = command("benchmark", path, "--runs", 1)
    assert code == 0
    assert "not measured: LiteRT latency: only TFLM decodes weights from tables" in out
    assert "median ms" not in out


def test_command_with_inputs(command, float_file, tmp_path, images):
    path = tmp_path / "float.tflite"
    path.write_bytes(float_file.data)
    code, _, err = command("benchmark", path, "--runs", 1)
    assert code == 1
    assert "pass --inputs" in err
    np.save(tmp_path / "x.npy", images)
    code, out, _ = command("benchmark", path, "--runs", 1, "--inputs", tmp_path / "x.npy")
    assert code == 0
    assert "median ms" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--threads", "0"], "'0' is no whole number from 1 up"),
        (["--threads", "1,"], "'' is no whole number from 1 up"),
        (["--runs", "0"], "'0' is no whole number from 1 up"),
        (["--warm_up", "-1"], "'-1' is no whole number from 0 up"),
    ],
)
def test_usage_errors(command, flags, message):
    code, out, err = command("benchmark", "x", *flags)
    assert (code, out) == (2, "")
    assert message in err


def test_errors_are_one_line(command, tmp_path):
    junk = tmp_path / "junk"
    junk.write_bytes(b"not a model at all")
    for path, message in ((tmp_path / "missing", "Cannot read"), (junk, "Not a TFLite model")):
        code, out, err = command("benchmark", path)
        assert (code, out) == (1, "")
        assert message in err
        assert err.count("\n") == 1
