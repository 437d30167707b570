"""CIFAR-10 in three parts, and the batches of every epoch as a function of seed and epoch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import numpy as np

PAD = 4
Part = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Images as uint8 NHWC and their classes.

    Attributes:
        train: what nets are trained on.
        choice: what settings are chosen by.
        test: what is reported, once.
    """

    train: Part
    choice: Part
    test: Part


def read_data(folder: str, ends: tuple[int, int, int]) -> Data:
    """The training images in `folder`/cifar10.npz, cut into three parts at the rows `ends`.

    Raises:
        ValueError: if there is no such file, or it has too few rows.
    """
    path = os.path.join(folder, "cifar10.npz")
    try:
        with np.load(path) as arrays:
            images, labels = arrays["x_train"], arrays["y_train"].reshape(-1).astype(np.int64)
    except (OSError, KeyError) as error:
        raise ValueError(f"No x_train and y_train can be read from {path!r}: {error}") from None
    if len(images) < ends[-1]:
        raise ValueError(f"{path!r} has {len(images)} rows, the study needs {ends[-1]}.")
    begins = (0, *ends[:-1])
    parts = [slice(*bounds) for bounds in zip(begins, ends, strict=True)]
    return Data(*((images[part], labels[part]) for part in parts))


def as_input(images: np.ndarray) -> np.ndarray:
    """What nets take: float32 from 0 to 1."""
    return images.astype(np.float32) / 255


def epoch_batches(part: Part, batch: int, seed: int, epoch: int, augment: bool) -> Iterator[Part]:
    """The batches of one epoch, the same in every process: (inputs, classes).

    The order is drawn anew in each epoch; images that fill no batch are left out. With `augment`
    each image is padded by 4 zeros, cropped at random and flipped or not.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(part[0]))
    shifts = random.integers(0, 2 * PAD + 1, (len(order), 2))
    flips = random.random(len(order)) < 0.5
    for begin in range(0, len(order) - batch + 1, batch):
        now = slice(begin, begin + batch)
        images, labels = part[0][order[now]], part[1][order[now]]
        if augment:
            images = crop_and_flip(images, shifts[now], flips[now])
        yield as_input(images), labels


def crop_and_flip(images: np.ndarray, shifts: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Images (n, h, w, c) padded by 4 zeros, cut at `shifts` (n, 2), mirrored where `flips`."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
    rows = shifts[:, :1] + np.arange(height)
    columns = shifts[:, 1:] + np.arange(width)
    columns = np.where(flips[:, None], columns[:, ::-1], columns)
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def batches(part: Part, batch: int, seed: int, first: int, augment: bool) -> Iterator[Part]:
    """The batches of the epochs from `first` on, without end."""
    epoch = first
    while True:
        yield from epoch_batches(part, batch, seed, epoch, augment)
        epoch += 1
