"""What reads a .tflite file runs without TensorFlow, and what does not says so in a line."""

import ast
import configparser
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tflite_tools.commands.arguments import PROGRAM

ROOT = pathlib.Path(__file__).parents[3]
FILES = ROOT / "tests" / "tflite_tools" / "files"
INSTALLING = (ROOT / "docs" / "install.md").read_text()
MODULES = {"absl": "absl-py", "ai_edge_litert": "ai-edge-litert"}  # others are called as they are
OPTIONAL = {"tflite_micro", "serial", "shtab"}
REMEDY = "pip install tfbinreg, '.' in a clone"
OF_LITERT = {"flatbuffers"}  # which installs it

RUNNER = """
import importlib, json, pkgutil, sys

ABSENT = ("tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "h5py")

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import tflite_tools

for module in pkgutil.walk_packages(tflite_tools.__path__, "tflite_tools."):
    if module.name != "tflite_tools.__main__":
        importlib.import_module(module.name)
from tflite_tools.commands import arguments, cli

codes = [cli.main(arguments.parse(["", *command])) for command in json.loads(sys.argv[1])]
print(json.dumps(codes), file=sys.stderr)
try:
    import tfbinreg
except ImportError as error:
    print(error, file=sys.stderr)
"""

READING = (
    "inspect int8.tflite",
    "inspect int8.tflite --card",
    "convert int8.tflite --format c -o net",
    "convert int8.tflite --format int4 -o int4.tflite",
    "convert int8.tflite --slim -o slim.tflite",
    "verify int8.tflite --samples 2",
    "verify slim.tflite --canonical int8.tflite --samples 2",
    "compare int8.tflite slim.tflite --samples 2",
    "report int8.tflite --samples 2 -o page.html",
)
KERAS = (
    "convert q.keras -o new.tflite",
    "convert q.keras --flash_budget 64KB --data x.npy -o new.tflite",
    "convert q.keras --finalize_data x.npy -o new.tflite",
    "verify int8.tflite --reference q.keras",
    "quantize q.keras --data x.npy --epochs 0 -o new.keras",
)


@pytest.fixture
def folder(tmp_path, int8_file):
    (tmp_path / "int8.tflite").write_bytes(int8_file.data)
    shutil.copy(FILES / "residual.keras", tmp_path / "q.keras")
    np.save(tmp_path / "x.npy", np.zeros((4, 8, 8, 3), np.float32))
    return tmp_path


def process(command, folder, **more):
    options = {"cwd": folder, "capture_output": True, "text": True, "timeout": 300}
    return subprocess.run(command, check=False, env={**os.environ, **more}, **options)


def run(commands, folder):
    """Runs command lines where TensorFlow cannot be imported: their codes, and stderr's lines."""
    words = json.dumps([line.split() for line in commands])
    done = process([sys.executable, "-c", RUNNER, words], folder, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    *errors, codes, told = done.stderr.splitlines()
    assert told.startswith("tfbinreg needs TensorFlow") and "pip install tfbinreg" in told
    return json.loads(codes), errors


def test_what_reads_files_runs(folder):
    codes, errors = run(READING, folder)
    assert codes == [0] * len(READING), errors
    assert (folder / "net" / "net.c").exists() and (folder / "page.html").exists()


def test_what_reads_keras_models_says_what_to_install(folder):
    codes, errors = run(KERAS, folder)
    assert codes == [1] * len(KERAS)
    for error in errors:
        assert error.startswith(f"{PROGRAM}: error: Reading a Keras model needs TensorFlow")
        assert error.endswith(f"(No module named 'tensorflow'): {REMEDY}")
    assert len(errors) == len(KERAS)
    assert not list(folder.glob("new.*"))


@pytest.mark.parametrize("command", [["--help"], ["--version"], []])
def test_the_help_imports_nothing_heavy(command, tmp_path):
    script = (
        "import sys\n"
        "from tflite_tools.commands import arguments, cli\n"
        "try:\n"
        "    arguments.parse(sys.argv)\n"
        "except SystemExit:\n"
        "    heavy = {'numpy', 'rich', 'ai_edge_litert', 'tensorflow'} & {*sys.modules}\n"
        "    print('heavy', *heavy)\n"
    )
    done = process([sys.executable, "-c", script, *command], tmp_path, PYTHONPATH=str(ROOT))
    assert done.stdout.splitlines()[-1] == "heavy", done.stderr


def imported():
    """Distributions outside the standard library that the tools import, but lazily from Keras."""
    names = set()
    for path in (ROOT / "tflite_tools").rglob("*.py"):
        if path.parent.name == "from_keras":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    ours = {"tfbinreg", "tflite_tools", "__future__"}
    names -= {*sys.stdlib_module_names, *ours, *OPTIONAL, *OF_LITERT}
    return {MODULES.get(name, name) for name in names}


def install_lines():
    """The lines of the page that install the tools without TensorFlow."""
    section = INSTALLING.partition("## Without TensorFlow")[2]
    return re.search(r"```\n(.*?)```", section, re.DOTALL)[1].splitlines()


def test_the_page_installs_what_is_imported():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = setup["options"]["install_requires"].split("\n")
    first, second = install_lines()
    named = [word.strip("'") for word in first.split()[2:]]
    assert second.split("#")[0].split() == ["pip", "install", "--no-deps", "."]
    assert set(named) <= set(wanted)
    assert {re.split(r"[<>=]", name)[0] for name in named} == imported()


@pytest.mark.slow
def test_the_lines_of_the_page_in_an_environment_of_its_own(folder):
    made = process([sys.executable, "-m", "venv", "venv"], folder)
    assert made.returncode == 0, made.stderr
    python, source = folder / "venv" / "bin" / "python", folder / "source"  # building writes there
    for package in ("tfbinreg", "tflite_tools"):
        shutil.copytree(ROOT / package, source / package)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for line in install_lines():
        command = f"'{python}' -m {line.split('#')[0]}"
        done = subprocess.run(["bash", "-c", command], cwd=source, capture_output=True, check=False)
        if b"No matching distribution found" in done.stderr:
            pytest.skip("no package index")
        assert done.returncode == 0, done.stderr
    for line in READING:
        done = process([folder / "venv" / "bin" / PROGRAM, *line.split()], folder)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    for line in KERAS:
        done = process([folder / "venv" / "bin" / PROGRAM, *line.split()], folder)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1 and done.stderr.endswith(f"{REMEDY}\n")
