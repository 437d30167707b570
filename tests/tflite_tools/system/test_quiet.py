"""Native log lines are hidden, messages and exceptions are not."""

import os
import subprocess
import sys

import pytest

from tflite_tools.system.quiet import native_log_hidden

SCRIPT = """
import os, sys, warnings
from tflite_tools.system.quiet import native_log_hidden
with native_log_hidden():
    os.write(2, b"native log\\n")
    print("message", file=sys.stderr)
    warnings.warn("of a library")
os.write(2, b"native later\\n")
print("later", file=sys.stderr)
"""


def test_only_native_lines_are_hidden():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.split("\n") == ["message", "native later", "later", ""]


def test_exceptions_pass_and_stderr_comes_back(capfd):
    before = sys.stderr
    with pytest.raises(KeyError), native_log_hidden():
        raise KeyError
    assert sys.stderr is before
    os.write(2, b"back")
    assert capfd.readouterr().err == "back"


def test_nothing_is_hidden_on_demand(capfd):
    with native_log_hidden(enabled=False):
        os.write(2, b"native log")
    assert capfd.readouterr().err == "native log"
