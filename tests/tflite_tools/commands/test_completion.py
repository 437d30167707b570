"""Completion scripts."""

import subprocess
import sys

import pytest

from tflite_tools.commands.arguments import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_knows_commands_flags_and_values(command, shell):
    pytest.importorskip("shtab")
    code, out, err = command("completion", shell)
    assert (code, err) == (0, "")
    for word in ("quantize", "convert", "flash_budget", "int4", "ethos-u"):
        assert word in out


COMPLETED = """
source $0
COMP_WORDS=(tflite_tools convert --format ""); COMP_CWORD=3; COMPREPLY=()
_shtab_tflite_tools
echo "${COMPREPLY[*]}"
COMP_WORDS=(tflite_tools inspect mod); COMP_CWORD=2; COMPREPLY=()
_shtab_tflite_tools
echo "${COMPREPLY[*]}"
"""


def test_bash_completes_by_it(command, tmp_path):
    pytest.importorskip("shtab")
    script = tmp_path / "script"
    script.write_text(command("completion", "bash")[1])
    (tmp_path / "model.tflite").touch()
    done = subprocess.run(
        ["bash", "-c", COMPLETED, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=True,
    )
    assert done.stdout == "int8 int4 lut c\nmodel.tflite\n"


def test_without_shtab_it_says_what_to_install(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, out, err = command("completion", "bash")
    assert (code, out) == (1, "")
    assert "pip install shtab, or 'tfbinreg[completion]'" in err


def test_other_shells_are_refused(command):
    code, _, err = command("completion", "bsh")
    assert code == 2 and "invalid choice: 'bsh': did you mean 'bash'?" in err
