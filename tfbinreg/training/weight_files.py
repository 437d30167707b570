"""The bits that weights were trained at, recorded in .h5 files of weights and compared on loading.

Weights of a model with other bits have the same shapes: without a record, a mismatch would go
unnoticed.
"""

from __future__ import annotations

import json
import os
from typing import Any

import h5py

from tfbinreg.core.grid import bits_text
from tfbinreg.layers.sites import sites

_ATTRIBUTE = "tfbinreg_bits"  # JSON: name of a quantized tensor -> bits
_LISTED = 20  # names in one error


def record_bits(path: str | os.PathLike[str], model: Any) -> None:
    """Record the bits of `model` in the .h5 file of its weights; does nothing for a checkpoint."""
    if _is_hdf5(path):
        with h5py.File(path, "a") as file:
            file.attrs[_ATTRIBUTE] = json.dumps(_bits(model))


def check_bits(path: str | os.PathLike[str], model: Any) -> None:
    """Compare the bits recorded in a weights file, if there are any, with those of `model`.

    Raises:
        ValueError: naming the quantized tensors that have other bits in the file.
    """
    if not _is_hdf5(path):
        return
    with h5py.File(path) as file:
        noted = json.loads(file.attrs.get(_ATTRIBUTE, "{}"))
    wrong = [
        f"{name} ({_told(noted[name])} in the file, {_told(bits)} in the model)"
        for name, bits in _bits(model).items()
        if noted.get(name, bits) != bits
    ]
    if wrong:
        more = f" and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        raise ValueError(
            f"The weights in {os.fspath(path)!r} were trained at other bits: "
            f"{', '.join(wrong[:_LISTED])}{more}. Quantize the model with the recipe they had."
        )


def _bits(model: Any) -> dict[str, int | list[int]]:
    return {site.name: _bits_of(site.quantizer) for site in sites(model)}


def _bits_of(quantizer: Any) -> int | list[int]:
    by_channel = getattr(quantizer, "channel_bits", None)
    return int(quantizer.bits) if by_channel is None else list(by_channel)


def _told(bits: int | list[int]) -> str:
    return bits_text(tuple(bits) if isinstance(bits, list) else bits)


def _is_hdf5(path: str | os.PathLike[str]) -> bool:
    return os.path.isfile(path) and h5py.is_hdf5(path)
