"""Lines, their checksums, and what a device tells of itself."""

import pytest

from tflite_tools.device import lines

TOLD = "hello version=1 name=net inputs=72,3 outputs=10 hash=0189abcd chunk=16 unit=cycles "
TOLD += "hz=64000000 core=armv7e-m"


def told(**changed):
    words = TOLD.split(" ")[1:]
    fields = dict(word.split("=") for word in words) | changed
    return [f"{name}={value}" for name, value in fields.items() if value is not None]


def test_the_checksum_is_the_one_that_is_documented():
    """CRC-16/CCITT-FALSE, whose check value every catalogue of CRCs has."""
    assert lines.closed("123456789") == b"123456789 29b1\n"


def test_lines_are_opened_as_they_were_closed():
    assert lines.opened(lines.closed("tfb load 16")) == ["load", "16"]
    assert lines.opened(lines.closed("tfb run 7").replace(b"\n", b"\r\n")) == ["run", "7"]


def test_what_a_device_prints_in_front_of_an_answer_is_left_out():
    line = b"I (310) app: " + lines.closed("tfb run 7")
    assert lines.is_answer(line) and lines.opened(line) == ["run", "7"]
    assert not lines.is_answer(b"net: 123 cycles, outputs are right\n")


@pytest.mark.parametrize("line", [b"tfb \n", b"tfb run 7 0000\n", b"tfb run 7\n", b"tfb \xff 12\n"])
def test_a_broken_line(line):
    with pytest.raises(lines.BrokenLineError):
        lines.opened(line)


def test_hello():
    found = lines.hello(told())
    assert found == lines.Hello(
        "net", (72, 3), (10,), 0x0189ABCD, 16, "cycles", 64_000_000, "armv7e-m"
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": "2"}, "speaks version 2 of the protocol, this program 1"),
        ({"version": None}, "speaks version None"),
        ({"hash": None}, "lacks something: 'hash'"),
        ({"inputs": "72,x"}, "lacks something: invalid literal"),
        ({"chunk": "0"}, "takes 0 bytes in a line"),
    ],
)
def test_a_hello_that_is_not_understood(changed, message):
    with pytest.raises(RuntimeError, match=message):
        lines.hello(told(**changed))
