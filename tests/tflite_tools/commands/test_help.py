"""What the commands say of themselves, and what the documents say of them."""

import pathlib
import re
import shlex

import pytest

from tflite_tools.commands import arguments as grammar
from tflite_tools.commands import cli, exit_codes


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_help_has_examples_that_parse(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    lines = out.partition("examples:\n")[2].splitlines()
    assert lines
    for line in lines:
        program, *words = shlex.split(line.partition(" > ")[0])
        assert (program, words[0]) == ("tflite_tools", name)
        assert grammar.parse([program, *words]).command == name


def test_help_has_the_exit_codes(command):
    code, out, _ = command("--help")
    assert code == 0
    for number, meaning in exit_codes.MEANINGS.items():
        assert f"\n  {number:<4} {meaning}\n" in f"{out}\n"


def test_the_documented_exit_codes_and_commands_are_those_there_are():
    page = (pathlib.Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert {int(number): meaning for number, meaning in rows} == exit_codes.MEANINGS
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [*cli._COMMANDS]


def test_version(command):
    code, out, _ = command("--version")
    assert code == 0
    assert out.startswith("tflite_tools ")
