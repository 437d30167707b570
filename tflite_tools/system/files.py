"""Reading and writing files: whole or not at all, with errors that say what is wrong."""

from __future__ import annotations

import os
import pathlib
import tempfile
import zipfile
from collections.abc import Mapping

import numpy as np


def read(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"Cannot read {os.fspath(path)!r}: {error.strerror}.") from error


def check_target(path: str | os.PathLike[str]) -> None:
    """Check that a file can be created, before the work that it is to hold is done.

    Raises:
        ValueError: if `path` is a folder, or its folder is missing or not writable.
    """
    target = pathlib.Path(path)
    name = os.fspath(path)
    if not name:
        raise ValueError("Cannot write: the name of the file is empty.")
    if target.is_dir():
        raise ValueError(f"Cannot write {name!r}: it is a folder.")
    if not target.parent.is_dir():
        raise ValueError(f"Cannot write {name!r}: {str(target.parent)!r} is not a folder.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ValueError(f"Cannot write {name!r}: no permission in {str(target.parent)!r}.")


def check_apart(output: str | os.PathLike[str], *others: str | os.PathLike[str] | None) -> None:
    """Check that an output replaces none of the other files of the same command.

    Args:
        output: the file or folder to write.
        others: paths, or None for a flag that was not given.

    Raises:
        ValueError: if it is one of them.
    """
    own = os.path.realpath(output)
    for other in others:
        if other is not None and os.path.realpath(other) == own:
            raise ValueError(
                f"Cannot write {os.fspath(output)!r}: the command needs this file itself. Give "
                "another name."
            )


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file in one step; an existing one is replaced.

    The bytes go to a temporary file beside the target, which then takes its name: a reader sees
    the old file or the new one, and a failure leaves nothing behind.

    Raises:
        ValueError: if it cannot be written.
    """
    check_target(path)
    target = pathlib.Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files for the owner alone
            os.replace(temporary, target)
        except BaseException:
            pathlib.Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ValueError(f"Cannot write {os.fspath(path)!r}: {error.strerror}.") from error


def check_folder(path: str | os.PathLike[str]) -> None:
    """Check that files can be created in a folder, which need not exist yet.

    Raises:
        ValueError: if `path` is a file, or it or its parent is not writable.
    """
    target = pathlib.Path(path)
    if target.exists() and not target.is_dir():
        raise ValueError(f"Cannot write to {os.fspath(path)!r}: it is no folder.")
    check_target(target / "file" if target.is_dir() else target)


def write_folder(path: str | os.PathLike[str], contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is made if it is missing; other files in it stay.

    All are written beside the folder first, so a failure leaves what was there.

    Args:
        path: the folder.
        contents: path of a file in the folder, with forward slashes -> bytes; folders in it are
            made.

    Raises:
        ValueError: if a path leads out of the folder, or a file cannot be written.
    """
    check_folder(path)
    target = pathlib.Path(path)
    for name in contents:
        parts = name.split("/")
        if "" in parts or "." in parts or ".." in parts:
            raise ValueError(f"Cannot write {name!r}: it is no path within the folder.")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            for name, data in contents.items():
                beside = pathlib.Path(folder) / name
                beside.parent.mkdir(parents=True, exist_ok=True)
                write(beside, data)
            for name in contents:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(pathlib.Path(folder) / name, target / name)
    except OSError as error:
        raise ValueError(f"Cannot write {os.fspath(path)!r}: {error.strerror}.") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_arrays(path: str | os.PathLike[str]) -> Mapping[str, np.ndarray]:
    """The arrays of an .npy or .npz file by name; an .npy file's one array is called "".

    Raises:
        ValueError: if the file cannot be read, or needs pickle.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            return {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except OSError as error:
        raise ValueError(f"Cannot read {name!r}: {error.strerror or error}.") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name!r} is no .npy or .npz file of plain numbers: {error}") from error
