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
    if target.is_dir():
        raise ValueError(f"Cannot write {name!r}: it is a folder.")
    if not target.parent.is_dir():
        raise ValueError(f"Cannot write {name!r}: {str(target.parent)!r} is not a folder.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ValueError(f"Cannot write {name!r}: no permission in {str(target.parent)!r}.")


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
