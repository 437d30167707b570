"""Talks with a device: one line is asked, one line answers.

A line that arrived broken is asked for again; a device that is silent, gone or refuses is an error.
"""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tflite_tools.device import lines
from tflite_tools.device.lines import BrokenLineError, Hello

TIMEOUT = 10.0  # seconds
_TRIES = 3
_SOON = 2.0  # seconds for what takes the device no time: then something was lost
_HELLO_EVERY = 1.0  # seconds: opening a port resets many boards, which then start for a while
_QUIET = 0.1  # seconds without a byte, after which nothing is on its way any more
_BROKEN = ("wrong checksum", "long line")  # reasons of the device to be asked again


class Port(Protocol):
    """What is used of pyserial's ports."""

    @property
    def in_waiting(self) -> int:
        """How many bytes can be read at once."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; fewer or none after a short while."""

    def write(self, data: bytes, /) -> Any:
        """Sends bytes."""


class Conversation:
    """A device that has said hello.

    Attributes:
        hello: what it told of itself.
    """

    def __init__(self, port: Port, *, name: str, timeout: float = TIMEOUT) -> None:
        """Greet the device.

        Args:
            port: opened, with a short timeout for reading.
            name: of the port, for messages.
            timeout: seconds to wait for each answer.

        Raises:
            RuntimeError: if it does not answer, or as something else.
        """
        self._port, self._name, self._timeout = port, name, timeout
        self._buffer = bytearray()
        self.hello: Hello = self._greet()

    def load(self, data: bytes) -> None:
        """Fill the device's inputs, which lie one behind the other.

        Raises:
            RuntimeError: if the device refuses, is silent or gone, or lines stay broken.
        """
        for begin in range(0, len(data), self.hello.chunk):
            part = data[begin : begin + self.hello.chunk]
            fits = functools.partial(operator.eq, [str(begin + len(part))])
            self._ask(f"load {begin} {len(part)} {part.hex()}", fits)

    def run(self) -> int:
        """Run the network once.

        Returns:
            What its counter counted meanwhile, from 0 to 2^32 - 1.

        Raises:
            RuntimeError: as for `load`.
        """
        (count,) = self._ask("run", lambda got: len(got) == 1 and got[0].isdecimal())
        return int(count)

    def outputs(self) -> bytes:
        """The device's outputs, one behind the other.

        Raises:
            RuntimeError: as for `load`.
        """
        size, found = sum(self.hello.outputs), bytearray()
        while len(found) < size:
            place = [str(len(found)), str(min(self.hello.chunk, size - len(found)))]
            got = self._ask(f"get {' '.join(place)}", functools.partial(_is_part, place))
            found += bytes.fromhex(got[2])
        return bytes(found)

    def _greet(self) -> Hello:
        deadline, heard = time.monotonic() + self._timeout, bytearray()
        while (left := deadline - time.monotonic()) > 0:
            self._send(b"\n" + lines.closed("hello"))  # a newline ends what others have begun
            end = time.monotonic() + min(left, _HELLO_EVERY)
            while (line := self._line(end)) is not None:
                heard += line
                try:
                    words = lines.opened(line) if lines.is_answer(line) else []
                except BrokenLineError:
                    continue
                if words[:1] == ["hello"]:
                    self._drain()
                    return lines.hello(words[1:])
        raise RuntimeError(self._no_hello(bytes(heard + self._buffer)))

    def _no_hello(self, heard: bytes) -> str:
        advice = (
            "is the example of a package (`tflite_tools convert --format c --package ...`) running "
            "on it, and are port and --baud right?"
        )
        if not heard:
            return f"Nothing came from {self._name} within {self._timeout:g} seconds: {advice}"
        shown = repr(heard[-40:])[1:]
        return f"What comes from {self._name} is no answer, the last of it {shown}: {advice}"

    def _ask(self, request: str, fits: Callable[[list[str]], bool]) -> list[str]:
        """What follows the word in the device's answer."""
        word, answer = request.partition(" ")[0], None
        seconds = self._timeout if word == "run" else min(_SOON, self._timeout)
        for _ in range(_TRIES):
            self._send(lines.closed(request))
            answer = self._answer(time.monotonic() + seconds)
            if answer is None and word == "run":  # it may still be at it
                break
            first, *rest = answer or [""]
            if first == word and fits(rest):
                return rest
            if first == "error" and (reason := " ".join(rest)) not in _BROKEN:
                raise RuntimeError(f"The device at {self._name} refuses `{word}`: {reason}.")
            self._drain()
        if answer is None:
            raise RuntimeError(
                f"The device at {self._name} did not answer `{word}` within {seconds:g} seconds"
                + ("; --timeout gives it more." if word == "run" else ".")
            )
        raise RuntimeError(
            f"Lines to or from {self._name} arrived broken {_TRIES} times in a row, asked for "
            f"`{word}`: try another cable or a lower baud rate."
        )

    def _answer(self, end: float) -> list[str] | None:
        """The words of the next answer, none if it is broken; None if it does not come in time."""
        while (line := self._line(end)) is not None:
            if lines.is_answer(line):
                try:
                    return lines.opened(line)
                except BrokenLineError:
                    return []
        return None

    def _line(self, end: float) -> bytes | None:
        """The next line; None if there is none until the time `end`."""
        late = False
        while b"\n" not in self._buffer:
            if late:
                return None
            late = time.monotonic() >= end  # what has come by then is read
            self._buffer += self._read()
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line + b"\n"

    def _drain(self) -> None:
        """Forget what is on its way."""
        now = last = time.monotonic()
        end = now + _HELLO_EVERY  # some devices are never quiet
        while now < min(last + _QUIET, end):
            if self._read():
                last = time.monotonic()
            now = time.monotonic()
        self._buffer.clear()

    def _send(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except OSError as error:  # pyserial's own errors are of this kind
            raise self._gone(error) from error

    def _read(self) -> bytes:
        try:
            return self._port.read(max(1, self._port.in_waiting))
        except OSError as error:
            raise self._gone(error) from error

    def _gone(self, error: OSError) -> RuntimeError:
        text = " ".join(str(error).split())
        return RuntimeError(f"The device at {self._name} is gone ({text}): was it unplugged?")


def _is_part(place: Sequence[str], got: Sequence[str]) -> bool:
    """Whether an answer to `get` has the bytes that were asked for."""
    if len(got) != 3 or list(got[:2]) != list(place):
        return False
    return len(got[2]) == 2 * int(place[1]) and set(got[2]) <= set("0123456789abcdef")
