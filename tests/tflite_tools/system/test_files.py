"""Files are written whole or not at all."""

import os
import stat

import numpy as np
import pytest

from tflite_tools.system import files


def test_writing_and_reading(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    files.write(path, b"new")
    assert files.read(path) == b"new"
    assert os.listdir(tmp_path) == ["model.tflite"]


def test_the_usual_permissions(tmp_path):
    files.write(tmp_path / "ours", b"")
    (tmp_path / "plain").write_bytes(b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [("folder", "it is a folder"), ("missing/x", "not a folder"), ("file/x", "not a folder")],
)
def test_impossible_targets(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(ValueError, match=message):
        files.write(tmp_path / name, b"data")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_an_output_is_none_of_the_inputs(tmp_path):
    (tmp_path / "model").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    files.check_apart(tmp_path / "new", tmp_path / "model", None)
    for name in ("model", "./model", "link"):
        with pytest.raises(ValueError, match="the command needs this file itself"):
            files.check_apart(f"{tmp_path}/{name}", None, tmp_path / "model")


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="No space left on device"):
        files.write(path, b"new")
    assert os.listdir(tmp_path) == ["model.tflite"]
    assert path.read_bytes() == b"old"


def test_unreadable_files(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        files.read(tmp_path / "missing")
    with pytest.raises(ValueError, match="Is a directory"):
        files.read(tmp_path)


def test_arrays(tmp_path):
    array = np.arange(6).reshape(2, 3)
    np.save(tmp_path / "one.npy", array)
    np.savez(tmp_path / "two.npz", a=array, b=-array)
    np.testing.assert_array_equal(files.read_arrays(tmp_path / "one.npy")[""], array)
    assert set(files.read_arrays(tmp_path / "two.npz")) == {"a", "b"}


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 no archive", b"\x93NUMPY\x01"])
def test_other_files_are_no_arrays(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npy' is no .npy or .npz file"):
        files.read_arrays(tmp_path / "x.npy")


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="plain numbers"):
        files.read_arrays(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="Cannot read"):
        files.read_arrays(tmp_path / "missing.npy")


def test_folders(tmp_path):
    folder = tmp_path / "new"
    files.check_folder(folder)
    assert not folder.exists()
    files.write_folder(folder, {"a.c": b"1", "b.h": b"2"})
    files.write_folder(folder, {"a.c": b"3"})
    assert (folder / "a.c").read_bytes() == b"3"
    assert sorted(os.listdir(folder)) == ["a.c", "b.h"]
    assert os.listdir(tmp_path) == ["new"]
    files.write_folder(folder, {"src/deep/c.c": b"4", "src/d.c": b"5"})
    assert (folder / "src" / "deep" / "c.c").read_bytes() == b"4"
    assert sorted(os.listdir(folder)) == ["a.c", "b.h", "src"]
    assert os.listdir(tmp_path) == ["new"]


def test_folders_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="it is no folder"):
        files.write_folder(tmp_path / "file", {})
    with pytest.raises(ValueError, match="is not a folder"):
        files.write_folder(tmp_path / "missing" / "x", {})
    for name in ("../a", "", "a/../b", "/a", "a/", "a//b", "./a"):
        with pytest.raises(ValueError, match="no path within the folder"):
            files.write_folder(tmp_path / "x", {name: b""})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="No space left on device"):
        files.write_folder(tmp_path / "x", {"a": b"", "b": b""})
    assert os.listdir(tmp_path) == ["file"]
    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ValueError, match="No space left on device"):
        files.write_folder(tmp_path / "x", {"a": b""})
