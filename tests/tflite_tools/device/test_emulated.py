"""Emulated processors at a serial port compute what TFLM computes (make test-device)."""

import dataclasses
import json
import re

import pytest

from tflite_tools.c import boards, packages
from tflite_tools.c.host_run import CompilerError
from tflite_tools.device import conversation, emulated, measure, serial_port

pytestmark = pytest.mark.device


@pytest.fixture(autouse=True)
def needs_pyserial():
    pytest.importorskip("serial")


@pytest.fixture(autouse=True)
def patient(impatient, monkeypatch):
    """QEMU and this computer have other work, too."""
    monkeypatch.setattr(conversation, "_HELLO_EVERY", 1.0)
    monkeypatch.setattr(conversation, "_QUIET", 0.1)


@pytest.fixture
def headers(several, sources, wanted):
    return packages.example(sources, several, name="two_ways", outputs_hash=wanted.outputs_hash)


def measured(address, wanted, name="two_ways"):
    with serial_port.opened(address) as port:
        talk = conversation.Conversation(port, name=name)
        return measure.measure(talk, wanted, device=name)


@pytest.mark.parametrize("cpu", boards.CPUS)
def test_outputs_and_instructions(sources, headers, wanted, several, cpu):
    with emulated.running(sources, headers, cpu=cpu) as address:
        found = measured(address, wanted)
    assert found.passed and found.numbers == 20 and found.different["TFLM"] == 0
    assert (found.core, found.unit, found.not_counted) == (cpu, "instructions", "")
    inputs = packages.inputs_of(several)
    counted = boards.run(sources, several, inputs, cpu=cpu).instructions
    assert abs(found.median - counted) < 0.01 * counted
    assert found.most - found.least < 0.01 * counted


def broken(sources):
    """The same with a wrong weight."""
    name = "two_ways.c"
    text = re.sub(
        r"(weights_0\[\d+\] = \{\s*)(\d+)",
        lambda match: f"{match[1]}{int(match[2]) ^ 0x55}",
        sources.files[name],
        count=1,
    )
    assert text != sources.files[name]
    return dataclasses.replace(sources, files={**sources.files, name: text})


@pytest.mark.parametrize("cpu", ["cortex-m4", "rv32imc"])
def test_a_wrong_weight_is_seen(sources, headers, wanted, cpu):
    with emulated.running(broken(sources), headers, cpu=cpu) as address:
        found = measured(address, wanted)
    assert not found.passed and found.different["TFLM"] > 0


def test_another_network_is_told(sources, headers, wanted):
    other = dataclasses.replace(wanted, outputs_hash=1)
    with (
        pytest.raises(RuntimeError, match="holds another network: 'two_ways' has the file's sizes"),
        emulated.running(sources, headers, cpu="cortex-m3") as address,
    ):
        measured(address, other)


def test_an_emulator_that_ends_is_told(sources, headers, wanted):
    trap = {**headers, "serve.h": headers["serve.h"].replace("infer_run();", "__builtin_trap();")}
    with (
        pytest.raises(CompilerError, match="qemu-system-arm ended meanwhile"),
        emulated.running(sources, trap, cpu="cortex-m3") as address,
    ):
        measured(address, wanted)


def test_command(command, several, tmp_path):
    file = tmp_path / "several.tflite"
    file.write_bytes(several.data)
    flags = ["--samples", 3, "--emulator", "cortex-m3,rv32imc"]
    code, out, err = command("benchmark", file, *flags)
    assert (code, err) == (0, "")
    assert out.count("instructions") == 3 and "they are not time" in out
    code, out, err = command("benchmark", file, *flags, "--json")
    assert (code, err) == (0, "")
    first, second = json.loads(out)["devices"]
    assert (first["device"], second["core"]) == ("cortex-m3 (emulated)", "rv32imc")
    assert first["different"]["TFLM"] == second["different"]["TFLM"] == 0
    assert (first["numbers"], first["runs"]) == (15, 9)
