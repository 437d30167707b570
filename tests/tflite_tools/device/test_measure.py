"""Figures of a device, and what shows that it holds another network; the command around them."""

import contextlib
import dataclasses
import json
import sys

import numpy as np
import pytest
from package_examples import attached

from tflite_tools.c import boards, host_run, packages
from tflite_tools.device import measure, serial_port
from tflite_tools.device.lines import Hello
from tflite_tools.running import runtime


class Device:
    """Computes what TFLM does, with some outputs changed."""

    def __init__(self, wanted, ticks=(5, 3, 9), **told):
        self.hello = Hello(
            "net", wanted.inputs, wanted.sizes, wanted.outputs_hash, 16, "cycles", 1000, "x"
        )
        self.hello = dataclasses.replace(self.hello, **told)
        self._wanted, self._ticks = wanted, list(ticks)
        self.outputs_of = dict(zip(map(bytes, wanted.rows), wanted.outputs["TFLM"], strict=True))

    def load(self, data):
        self._loaded = data

    def run(self):
        self._ticks.append(self._ticks.pop(0))
        return self._ticks[-1]

    def outputs(self):
        return self.outputs_of[self._loaded].tobytes()


def test_figures(wanted):
    told = []
    found = measure.measure(Device(wanted), wanted, device="d", advance=lambda *a: told.append(a))
    assert (found.runs, found.median, found.least, found.most) == (12, 5, 3, 9)
    assert found.different["TFLM"] == 0 and found.passed
    assert told[1] == (0.25, "d: sample 2 of 4")


def test_every_number_that_differs_is_counted(wanted):
    device = Device(wanted)
    device.outputs_of = {row: values.copy() for row, values in device.outputs_of.items()}
    changed = list(device.outputs_of.values())
    changed[0][:2] += 1
    changed[3][4] += 1
    found = measure.measure(device, wanted, device="d")
    assert found.different["TFLM"] == 3 and not found.passed


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"inputs": (72, 4)}, "'net' with inputs of 72, 4 and outputs of 2, 3 bytes, where the f"),
        ({"outputs": (5,)}, "where the file has 72, 3 and 2, 3"),
        (
            {"outputs_hash": 1},
            "'net' has the file's sizes, but was made of a file that computes so",
        ),
    ],
)
def test_another_network_is_told(wanted, told, message):
    with pytest.raises(RuntimeError, match=message):
        measure.measure(Device(wanted, **told), wanted, device="d")


def test_counts_that_say_nothing_are_left_out(wanted, monkeypatch):
    found = measure.measure(Device(wanted, ticks=[0]), wanted, device="d")
    assert (found.median, found.not_counted) == (None, "its counter stands still")
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(measure.time, "monotonic", lambda: next(clock))
    assert measure.measure(Device(wanted), wanted, device="d").median == 5  # at 1000 Hz
    for hz in (0, 10**9):
        found = measure.measure(Device(wanted, hz=hz), wanted, device="d")
        assert found.not_counted.startswith("an inference took 5.0 seconds, in which its counter")


def test_without_tflm_the_c_of_this_computer_is_the_reference(several, monkeypatch):
    shapes = [several.main.tensors[index].shape for index in several.main.outputs]
    made = tuple(np.ones((2, *shape[1:]), np.int8) for shape in shapes)

    def run(files, model, inputs):
        assert "model.c" in files and all(len(array) == 2 for array in inputs)
        return made

    def refuse(*_, **__):
        raise runtime.RuntimeFailedError("no")

    monkeypatch.setattr(runtime, "available", lambda name: False)
    monkeypatch.setattr(runtime, "run", refuse)
    monkeypatch.setattr(host_run, "run", run)
    monkeypatch.setattr(host_run, "compiler", lambda: "cc")
    found = measure.expected(several, packages.inputs_of(several))
    assert found.outputs.keys() == {measure.HERE}
    np.testing.assert_array_equal(found.outputs[measure.HERE], np.ones((1, 5)))
    assert found.outputs_hash == packages.hash_of([array[1:] for array in made])
    monkeypatch.setattr(host_run, "compiler", lambda: None)
    with pytest.raises(RuntimeError, match="Comparing outputs needs TFLM"):
        measure.expected(several, packages.inputs_of(several))


def test_a_file_that_is_no_c_is_refused(float_io_file):
    with pytest.raises(ValueError, match="whose inputs and outputs are int8: convert with --input"):
        measure.expected(float_io_file, [])


@pytest.fixture
def plugged(example, monkeypatch):
    """The example at the port PORT; the bauds it was opened with."""
    bauds = []

    @contextlib.contextmanager
    def opened(name, *, baud):
        assert name == "PORT"
        bauds.append(baud)
        with attached(example) as port:
            yield port

    monkeypatch.setattr(serial_port, "check_installed", lambda: None)
    monkeypatch.setattr(serial_port, "opened", opened)
    return bauds


@pytest.fixture
def file(several, tmp_path):
    path = tmp_path / "several.tflite"
    path.write_bytes(several.data)
    return path


def test_command(command, plugged, file, wanted, monkeypatch):
    monkeypatch.setattr(measure, "expected", lambda model, inputs: wanted)
    flags = ["--serial", "PORT", "--repeats", 2]
    code, out, err = command("benchmark", file, *flags)
    assert (code, err) == (0, "")
    assert "not measured: PORT: its counter stands still" in out
    assert "0 of 20" in out and "every output is that of TFLM" in out
    wrong = {name: outputs + (name == "TFLM") for name, outputs in wanted.outputs.items()}
    wrong = dataclasses.replace(wanted, outputs=wrong)
    monkeypatch.setattr(measure, "expected", lambda model, inputs: wrong)
    code, out, _ = command("benchmark", file, *flags, "--baud", 9600)
    assert code == 1
    assert "FAILED PORT: 20 of 20 outputs are not those of TFLM" in out
    code, out, err = command("benchmark", file, *flags, "--json")
    assert (code, err) == (1, "")
    (fields,) = json.loads(out)["devices"]
    assert (fields["device"], fields["network"], fields["passed"]) == ("PORT", "two_ways", False)
    assert (fields["different"]["TFLM"], fields["numbers"]) == (20, 20)
    assert plugged == [115200, 9600, 115200]


def test_another_file_is_told_by_the_command(command, plugged, file, wanted, monkeypatch):
    other = dataclasses.replace(wanted, inputs=(192,))
    monkeypatch.setattr(measure, "expected", lambda model, inputs: other)
    code, out, err = command("benchmark", file, "--serial", "PORT")
    assert (code, out) == (1, "")
    assert "error: The device holds another network: 'two_ways' with inputs of 72, 3" in err


def test_missing_tools_are_told(command, file, monkeypatch, wanted):
    monkeypatch.setitem(sys.modules, "serial", None)
    code, out, err = command("benchmark", file, "--serial", "PORT")
    assert (code, out) == (1, "")
    assert "pip install pyserial, or 'tfbinreg[board]'" in err
    monkeypatch.setattr(serial_port, "check_installed", lambda: None)
    monkeypatch.setattr(measure, "expected", lambda model, inputs: wanted)
    monkeypatch.setattr(boards, "missing", lambda cpus: ("qemu-system-arm",))
    code, out, err = command("benchmark", file, "--emulator", "cortex-m3")
    assert (code, out) == (1, "")
    assert err == "tflite_tools: error: Not installed: qemu-system-arm (Debian packages).\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--emulator", "cortex-m9"], "no emulated board has a 'cortex-m9': did you mean"),
        (["--repeats", "0"], "'0' is no whole number from 1 up"),
        (["--timeout", "nan"], "'nan' is no number of seconds above 0"),
        (["--timeout", "0"], "'0' is no number of seconds above 0"),
        (["--baud", "9600", "--emulator", "cortex-m3"], "--baud goes with --serial"),
        (["--repeats", "2"], "--repeats goes with --serial or --emulator"),
        (["--samples", "2"], "--samples goes with --serial or --emulator"),
        (["--runs", "2", "--serial", "p"], "--runs measures this computer, not a device: leave it"),
    ],
)
def test_usage_errors(command, flags, message):
    code, out, err = command("benchmark", "x", *flags)
    assert (code, out) == (2, "")
    assert message in err
