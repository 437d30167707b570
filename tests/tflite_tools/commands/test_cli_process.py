"""The command line as a process of its own."""

import subprocess
import sys

import pytest


def _process(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tflite_tools", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _script(text, path):
    """Runs Python text, which asserts, in a process of its own."""
    subprocess.run(
        [sys.executable, "-c", text, str(path)], capture_output=True, timeout=120, check=True
    )


def test_missing_files_are_told_before_tensorflow_is_loaded(model_file):
    script = (
        "import sys; from tflite_tools.commands import arguments, cli\n"
        "commands = (['convert', 'gone.keras', '-o', 'x.tflite'],\n"
        "            ['verify', sys.argv[1], '--reference', 'gone.keras'],\n"
        "            ['report', sys.argv[1], '--reference', 'gone.keras', '-o', 'r.html'])\n"
        "for command in commands:\n"
        "    code = cli.main(arguments.parse(['', *command]))\n"
        "    assert code == 1 and 'tensorflow' not in sys.modules, command\n"
    )
    _script(script, model_file)


def test_as_a_module(model_file):
    done = _process("inspect", model_file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pointwise" in done.stdout
    assert _process("inspct").returncode == 2


@pytest.mark.slow
def test_converting_shows_no_native_log(saved_net, tmp_path):
    done = _process("convert", saved_net, "--output", tmp_path / "model.tflite")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "model.tflite").exists()


def test_a_reader_that_leaves_early_is_no_error(model_file):
    script = f"{sys.executable} -m tflite_tools inspect {model_file} --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{", "")
