"""Keras files that Windows wrote with backslashes in the names inside, made readable anywhere."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py


@contextlib.contextmanager
def with_slashes(path: str) -> Iterator[str]:
    """`path` itself, or a temporary copy whose inner names have slashes.

    Args:
        path: a .keras file, or anything else.
    """
    if not os.path.isfile(path) or not zipfile.is_zipfile(path) or not _has_backslashes(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy.keras")
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
            for name in source.namelist():
                data = source.read(name)
                own = _renamed(data) if name.endswith(".h5") else data
                target.writestr(name.replace("\\", "/"), own)
        yield copy


def _has_backslashes(path: str) -> bool:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for name in [name for name in names if name.endswith(".h5")]:
            with h5py.File(io.BytesIO(archive.read(name))) as file:
                names += file
    return any("\\" in name for name in names)


def _renamed(data: bytes) -> bytes:
    """An HDF5 file with slashes, and therefore groups, in place of backslashes in names."""
    stream = io.BytesIO()
    with h5py.File(io.BytesIO(data)) as source, h5py.File(stream, "w") as target:

        def copy(name: str, node: Any) -> None:
            own = name.replace("\\", "/")
            if isinstance(node, h5py.Dataset):
                made = target.create_dataset(own, data=node[()])
            else:
                made = target.require_group(own)
            made.attrs.update(node.attrs)

        source.visititems(copy)
    return stream.getvalue()
