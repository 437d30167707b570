"""Images of discs, squares and triangles, drawn with NumPy, and the boxes around them."""

from __future__ import annotations

import dataclasses

import numpy as np

SIZE = 64  # pixels, height and width of an image
CLASSES = ("disc", "square", "triangle")
_SMALLEST, _LARGEST, _MOST = 14, 30, 4  # pixels; shapes in an image
_OVERLAP = 0.1  # of two boxes, at most


@dataclasses.dataclass(frozen=True, eq=False)
class Scenes:
    """Images with what is in them.

    Attributes:
        images: float32 (count, SIZE, SIZE, 3), 0 to 255.
        boxes: for each image float32 (shapes, 4): left, top, right, bottom in pixels.
        classes: for each image int64 (shapes,), places in CLASSES.
    """

    images: np.ndarray
    boxes: list[np.ndarray]
    classes: list[np.ndarray]


def draw(count: int, seed: int) -> Scenes:
    """`count` images of one to four shapes on a noisy background, always the same for a seed."""
    random = np.random.default_rng(seed)
    images = np.empty((count, SIZE, SIZE, 3), np.float32)
    boxes, classes = [], []
    for image in images:
        image[:] = _background(random)
        found: list[tuple[np.ndarray, int]] = []
        wanted = random.integers(1, _MOST + 1)
        while len(found) < wanted:
            kind = int(random.integers(len(CLASSES)))
            mask = _mask(kind, random)
            box = _box(mask)
            if all(overlaps(box[None], other[None])[0, 0] <= _OVERLAP for other, _ in found):
                image[mask] = _colour(image[mask].mean(axis=0), random)
                found.append((box, kind))
        np.clip(np.rint(image + random.normal(0, 6, image.shape)), 0, 255, out=image)
        boxes.append(np.stack([box for box, _ in found]))
        classes.append(np.array([kind for _, kind in found]))
    return Scenes(images, boxes, classes)


def _background(random: np.random.Generator) -> np.ndarray:
    """A colour that changes from one corner to the other."""
    first, last = random.uniform(40, 215, (2, 3))
    way = np.add.outer(np.arange(SIZE), np.arange(SIZE))[..., None] / (2 * SIZE - 2)
    return first + (last - first) * way


def _colour(around: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A colour that differs from the one around."""
    while True:
        colour = random.uniform(0, 255, 3)
        if np.abs(colour - around).max() > 60:
            return colour


def _mask(kind: int, random: np.random.Generator) -> np.ndarray:
    """Which pixels a shape covers."""
    side = random.uniform(_SMALLEST, _LARGEST)
    left, top = random.uniform(0, SIZE - side, 2)
    x, y = np.meshgrid(np.arange(SIZE) + 0.5 - left, np.arange(SIZE) + 0.5 - top)
    inside = (x >= 0) & (x <= side) & (y >= 0) & (y <= side)
    if CLASSES[kind] == "disc":
        return np.hypot(x - side / 2, y - side / 2) <= side / 2
    if CLASSES[kind] == "triangle":
        return inside & (np.abs(x - side / 2) <= y / 2)
    return inside


def _box(mask: np.ndarray) -> np.ndarray:
    """The box around the pixels of a mask."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of each of `first` with each of `second`: float32 (n, m).

    Args:
        first, second: float32 (n, 4) and (m, 4): left, top, right, bottom.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.maximum(high - low, np.float32(0)), axis=-1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return shared / np.maximum(union, np.float32(1e-6))
