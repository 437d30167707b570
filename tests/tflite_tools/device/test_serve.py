"""What serves a network on a device, compiled for this computer with its sanitizers."""

import subprocess

import numpy as np
import pytest
from package_examples import attached

from tflite_tools.device import lines, measure
from tflite_tools.device.conversation import Conversation

CHUNK = 16


@pytest.fixture(scope="module")
def answers(example):
    """Sends lines, as texts to close or bytes; returns the answers as texts."""

    def send(*requests):
        sent = [text if isinstance(text, bytes) else lines.closed(text) for text in requests]
        done = subprocess.run([example], input=b"".join(sent), capture_output=True, check=True)
        first, *rest = done.stdout.splitlines(keepends=True)
        assert b"outputs are right" in first
        return [" ".join(lines.opened(line)) for line in rest]

    return send


def test_every_wrong_request_is_told(answers):
    long = "load 0 16 " + 200 * "0"
    cases = {
        b"hello\n": "wrong checksum",
        b"hello 0000\n": "wrong checksum",
        b"hello_1234\n": "wrong checksum",
        b"x\n": "wrong checksum",
        lines.closed("run").upper(): "wrong checksum",
        b"\x00\xff\x80 ffff\n": "wrong checksum",
        "": "unknown request",
        "hell": "unknown request",
        "hello you": "unknown request",
        "run 1": "unknown request",
        "runs": "unknown request",
        "load": "load needs OFFSET COUNT HEX",
        "load 1": "load needs OFFSET COUNT HEX",
        "load -1 1 00": "load needs OFFSET COUNT HEX",
        "load 4294967296 1 00": "load needs OFFSET COUNT HEX",
        "load 0 1 0": "load has another COUNT of bytes",
        "load 0 1 000": "load has another COUNT of bytes",
        "load 0 1 0g": "load has another COUNT of bytes",
        "load 0 1 00 ": "load has another COUNT of bytes",
        "load 75 1 00": "load goes beyond the inputs or the chunk",
        "load 4294967295 1 00": "load goes beyond the inputs or the chunk",
        f"load 0 17 {17 * '00'}": "load goes beyond the inputs or the chunk",
        "get 0": "get needs OFFSET COUNT",
        "get 0 1 2": "get needs OFFSET COUNT",
        "get 5 1": "get goes beyond the outputs or the chunk",
        "get 0 6": "get goes beyond the outputs or the chunk",
        long: "long line",
    }
    assert answers(*cases) == [f"error {reason}" for reason in cases.values()]


def test_lines_may_end_as_on_windows_and_be_empty(answers):
    run = lines.closed("run").replace(b"\n", b"\r\n")
    (answer,) = answers(b"\n\r\n\n", run)
    assert answer.startswith("run ")


def test_the_longest_line_is_taken(answers):
    spaces = b" " * (2 * CHUNK + 32 - len(lines.closed("")) + 1)
    longest, longer = (lines.closed(text.decode()) for text in (spaces, spaces + b" "))
    assert answers(longest, longer) == ["error unknown request", "error long line"]


def test_bytes_go_where_they_belong(answers):
    """Inputs of 72 and 3 bytes, which one line may fill both, and outputs of 2 and 3."""
    data = bytes(range(244, 256)) + bytes([0, 1, 127, 128])
    loaded = [f"load {begin} 16 {data.hex()}" for begin in (0, 16, 32, 48)]
    loaded += [
        f"load 64 11 {data[:11].hex()}",
        "load 75 0 ",
        "run",
        "get 0 5",
        "get 1 3",
        "get 5 0",
    ]
    *made, count, whole, part, none = answers(*loaded)
    assert made == ["load 16", "load 32", "load 48", "load 64", "load 75", "load 75"]
    assert count.startswith("run ")
    assert part == f"get 1 3 {whole.split()[3][2:8]}" and none == "get 5 0 "


def test_the_outputs_are_those_of_tflm(example, wanted):
    with attached(example) as port:
        talk = Conversation(port, name="pipes", timeout=5.0)
        found = measure.measure(talk, wanted, device="here", repeats=2)
    assert talk.hello.name == "two_ways" and talk.hello.chunk == CHUNK
    assert (found.runs, found.numbers) == (8, 20)
    assert found.passed and found.different["TFLM"] == 0
    assert np.unique(wanted.outputs["TFLM"]).size > 2
    assert (found.unit, found.not_counted) == ("ticks", "its counter stands still")
