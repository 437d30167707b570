"""Files that are complete or absent."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file in one step: whoever reads it finds the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)


def save_arrays(path: Path, arrays: list[np.ndarray]) -> None:
    """Write arrays in order, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(part, "wb") as file:
        np.savez(file, *arrays)
    os.replace(part, path)


def load_arrays(path: Path) -> list[np.ndarray]:
    """What `save_arrays` wrote."""
    with np.load(path) as arrays:
        return [arrays[f"arr_{index}"] for index in range(len(arrays.files))]
