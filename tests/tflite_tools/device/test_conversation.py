"""What is said to a device and what becomes of its answers, with a device made up here."""

import pytest

from tflite_tools.device import conversation, lines
from tflite_tools.device.conversation import Conversation

HELLO = "hello version=1 name=net inputs=20,3 outputs=5 hash=0 chunk=16 unit=cycles hz=0 core=x"


class Device:
    """Answers as `serve.h` does; `faults` change what it sends: a function of the request's word
    and of the answer, which returns bytes."""

    def __init__(self, fault=lambda word, answer: answer):
        self.inputs, self.asked, self.fault = bytearray(23), [], fault
        self._sent = b""

    def write(self, data):
        for line in filter(None, data.split(b"\n")):
            text = line[:-5].decode()
            assert lines.closed(text) == line + b"\n" and len(line) < 64
            word, *rest = text.split(" ")
            self.asked.append(word)
            self._sent += self.fault(word, lines.closed(f"tfb {getattr(self, word)(*rest)}"))

    @property
    def in_waiting(self):
        return len(self._sent)

    def read(self, size):
        got, self._sent = self._sent[:size], self._sent[size:]
        return got

    def hello(self):
        return HELLO

    def load(self, offset, count, text):
        data = bytes.fromhex(text)
        assert len(data) == int(count) <= 16
        self.inputs[int(offset) : int(offset) + len(data)] = data
        return f"load {int(offset) + len(data)}"

    def run(self):
        return "run 4294967295"

    def get(self, offset, count):
        begin = int(offset)
        return f"get {offset} {count} {bytes(range(begin, begin + int(count))).hex()}"


def times(count, word, changed):
    """A fault of the first `count` answers to a word."""
    left = [count]

    def fault(asked, answer):
        if asked != word or left[0] == 0:
            return answer
        left[0] -= 1
        return changed(answer) if callable(changed) else changed

    return fault


def talk(device, timeout=20.0):
    return Conversation(device, name="PORT", timeout=timeout)


def test_a_conversation():
    device, data = Device(), bytes(range(100, 123))
    found = talk(device)
    found.load(data)
    assert device.inputs == data
    assert found.run() == 2**32 - 1
    assert found.outputs() == bytes(range(5))
    assert device.asked == ["hello", "load", "load", "run", "get"]


@pytest.mark.parametrize(
    "changed",
    [
        lambda answer: answer.replace(b"7", b"8", 1),
        lambda answer: answer[:-3] + b"\n",
        lambda answer: b"tfb tfb " + answer,
        lambda answer: answer[:9] + b"\n" + answer[9:],
        lines.closed("tfb run"),
        lines.closed("tfb load 16"),  # a late one
        lines.closed("tfb error wrong checksum"),
        lines.closed("tfb error long line"),
    ],
)
def test_what_is_broken_is_asked_for_again(changed):
    device = Device(times(2, "run", changed))
    assert talk(device).run() == 2**32 - 1
    assert device.asked.count("run") == 3
    with pytest.raises(RuntimeError, match="PORT arrived broken 3 times in a row, asked for `run`"):
        talk(Device(times(3, "run", changed))).run()


@pytest.mark.parametrize("text", ["tfb get 0 4 00010203", "tfb get 0 5 00010203", "tfb get 0 5 zz"])
def test_outputs_that_are_not_those_asked_for(text):
    with pytest.raises(RuntimeError, match="asked for `get`"):
        talk(Device(times(3, "get", lines.closed(text)))).outputs()


def test_what_a_device_prints_beside_is_passed_over():
    device = Device(lambda word, answer: b"net: 12 cycles\r\nI (3) boot: " + answer)
    assert talk(device).run() == 2**32 - 1


def test_a_device_that_still_starts_is_greeted_again():
    device = Device(times(2, "hello", b"booting\n"))
    assert talk(device).hello.name == "net"
    assert device.asked == ["hello"] * 3
    device = Device(times(1, "hello", lambda answer: answer.replace(b"net", b"not")))
    assert talk(device).hello.name == "net"


def test_late_answers_to_hello_are_forgotten():
    device = Device(times(1, "hello", lambda answer: 3 * answer))
    assert talk(device).run() == 2**32 - 1
    assert device.asked.count("run") == 1


def test_a_silent_device():
    with pytest.raises(RuntimeError, match=r"Nothing came from PORT within 0\.1 seconds: is th"):
        talk(Device(lambda word, answer: b""), timeout=0.1)
    device = Device(times(1, "run", b""))
    with pytest.raises(RuntimeError, match=r"not answer `run` within 0\.1 seconds; --timeout"):
        talk(device, timeout=0.1).run()
    assert device.asked.count("run") == 1
    with pytest.raises(RuntimeError, match=r"PORT did not answer `get` within 0\.1 seconds\.$"):
        talk(Device(times(9, "get", b"")), timeout=0.1).outputs()


def test_what_was_lost_is_asked_for_again(monkeypatch):
    monkeypatch.setattr(conversation, "_SOON", 0.05)
    device = Device(times(2, "load", b""))
    talk(device).load(bytes(range(23)))
    assert device.inputs == bytes(range(23)) and device.asked.count("load") > 3


def test_something_else_that_talks():
    with pytest.raises(RuntimeError, match=r"is no answer, the last of it '.*OK\\n': is the exa"):
        talk(Device(lambda word, answer: b"AT\nOK\n"), timeout=0.1)


def test_a_refusal():
    device = Device(times(1, "load", lines.closed("tfb error load goes beyond the inputs")))
    with pytest.raises(RuntimeError, match="PORT refuses `load`: load goes beyond the inputs"):
        talk(device).load(bytes(23))


@pytest.mark.parametrize("action", ["read", "write"])
def test_an_unplugged_device(action, monkeypatch):
    device = Device()
    found = talk(device)

    def gone(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(device, action, gone)
    with pytest.raises(RuntimeError, match=r"PORT is gone .*Input/output error.*: was it unp"):
        found.run()
