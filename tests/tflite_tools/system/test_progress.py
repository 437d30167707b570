"""The progress bar."""

import io
import sys

from tflite_tools.system.progress import counted, progress, quietly


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_a_bar_that_is_gone_afterwards(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress() as advance:
        advance(None, "reading")
        advance(0.5, "epoch [1]")
    assert "epoch [1]" in sys.stderr.getvalue()
    assert sys.stderr.getvalue().endswith("\x1b[2K")  # the line is erased


def test_logs_and_json_have_none(monkeypatch, capsys):
    with progress() as advance:
        advance(0.5, "epoch 1")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress(enabled=False) as advance:
        advance(0.5, "epoch 1")
    assert advance is quietly and sys.stderr.getvalue() == ""
    assert capsys.readouterr().err == ""


def test_items_are_counted_as_they_come():
    told = []
    items = counted("ab", lambda *now: told.append(now), "batch")
    assert told == []
    assert list(items) == ["a", "b"] and told == [(None, "batch 1"), (None, "batch 2")]
