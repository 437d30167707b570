"""The lines that are spoken with a device: checksums, and what it tells of itself.

The device's side is `serve.h` of the packages, which describes them.
"""

from __future__ import annotations

import binascii
import dataclasses
from collections.abc import Sequence

VERSION = "1"
_PREFIX = b"tfb "


class BrokenLineError(RuntimeError):
    """A line that did not arrive as it was sent, or does not answer what was asked."""


@dataclasses.dataclass(frozen=True)
class Hello:
    """What a device tells of itself.

    Attributes:
        name: of its network.
        inputs: bytes of each input.
        outputs: bytes of each output.
        outputs_hash: FNV-1a of the right outputs for the sample that `packages.inputs_of` makes.
        chunk: most bytes that go into a line.
        unit: what its counter counts.
        hz: how many of them in a second; 0 if it does not know.
        core: of its processor.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    outputs_hash: int
    chunk: int
    unit: str
    hz: int
    core: str


def closed(text: str) -> bytes:
    """A line as it is sent: the text, a blank, its CRC-16 from 0xFFFF as 4 digits, a newline."""
    data = text.encode("ascii")
    return b"%s %04x\n" % (data, binascii.crc_hqx(data, 0xFFFF))


def is_answer(line: bytes) -> bool:
    """Whether a line is an answer, and no message that the device prints beside."""
    return _PREFIX in line


def opened(line: bytes) -> list[str]:
    """The words of an answer.

    Raises:
        BrokenLineError: if the checksum is wrong.
    """
    whole = line[line.index(_PREFIX) :].rstrip(b"\r\n")
    text, _, crc = whole.rpartition(b" ")
    if crc != b"%04x" % binascii.crc_hqx(text, 0xFFFF):
        raise BrokenLineError(repr(line)[1:80])
    return text[len(_PREFIX) :].decode("ascii", "replace").split(" ")


def hello(words: Sequence[str]) -> Hello:
    """What a device's answer to `hello` says.

    Raises:
        RuntimeError: if it is of another version, or says too little.
    """
    fields = dict(word.partition("=")[::2] for word in words)
    if fields.get("version") != VERSION:
        raise RuntimeError(
            f"The device speaks version {fields.get('version')} of the protocol, this program "
            f"{VERSION}: write its package again with `tflite_tools convert --package`."
        )
    try:
        found = Hello(
            name=fields["name"],
            inputs=_sizes(fields["inputs"]),
            outputs=_sizes(fields["outputs"]),
            outputs_hash=int(fields["hash"], 16),
            chunk=int(fields["chunk"]),
            unit=fields["unit"],
            hz=int(fields["hz"]),
            core=fields["core"],
        )
    except (KeyError, ValueError) as error:
        raise RuntimeError(f"The device's answer to `hello` lacks something: {error}.") from error
    if not 1 <= found.chunk <= 4096:
        raise RuntimeError(f"The device takes {found.chunk} bytes in a line; 1 to 4096 are known.")
    return found


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
