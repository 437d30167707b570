"""The wheel and the source archive: everything that is needed, nothing else, and they run."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import tfbinreg

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("tfbinreg", "tflite_tools")
MOST_BYTES = 2**20
BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


def call(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked():
    """The files of the repository, as a clone has them."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    listed = call("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return [path for path in listed.splitlines() if (ROOT / path).is_file()]


@pytest.fixture(scope="module")
def built(tracked, tmp_path_factory):
    """The folder with the wheel of a copy of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    for path in tracked:
        if not path.startswith(("tests/", "examples/", "benchmarks/", "docs/")):
            (folder / "source" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / "source" / path)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    command = [*pip, "--wheel-dir", folder, folder / "source"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("no package index, from which building takes setuptools")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel, tracked):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(names) == sorted(path for path in tracked if path.startswith(PACKAGES))
    assert wheel.name == f"tfbinreg-{tfbinreg.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < MOST_BYTES


def test_the_wheel_runs_where_the_repository_is_not(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    here = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = (sys.executable, "-m", "tflite_tools")
    told = call(*command, "--version", cwd=tmp_path, env=here)
    assert tfbinreg.__version__ in told
    file = ROOT / "tests" / "golden" / "device" / "int8.tflite"
    made = (file, "--format", "c", "--package", "zephyr", "--output", "net")
    call(*command, "convert", *made, cwd=tmp_path, env=here)
    assert (tmp_path / "net" / "zephyr" / "module.yml").exists()
    where = "import tflite_tools; print(tflite_tools.__file__)"
    assert str(tmp_path / "site") in call(sys.executable, "-c", where, cwd=tmp_path, env=here)


def test_the_source_archive_has_what_the_wheel_is_made_of(built, tracked, tmp_path):
    call(sys.executable, "-c", BUILD, str(tmp_path), cwd=built / "source")
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"}
    assert needed | {path for path in tracked if path.startswith(PACKAGES)} <= names
