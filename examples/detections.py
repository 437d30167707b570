"""The steps after a detector: its numbers become boxes, and the best boxes are kept and scored.

`detector_c/boxes.c` finds the same boxes, bit for bit: all numbers are float32, and computed in
the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from shapes import overlaps

MATCH = 0.5  # intersection over union from which a box counts as found


class Found(NamedTuple):
    """The boxes of an image, the best first.

    Attributes:
        boxes: float32 (n, 4): left, top, right, bottom in pixels.
        scores: float32 (n,).
        classes: int64 (n,).
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def find(
    distances: np.ndarray,
    scores: np.ndarray,
    *,
    cell: int,
    least_score: float,
    most_overlap: float = 0.5,
) -> Found:
    """The boxes that a detector sees in an image (greedy non-maximum suppression in each class).

    Args:
        distances: float32 (rows, columns, 4): from the middle of each cell to the left, upper,
            right and lower edge of a box, in cells.
        scores: float32 (rows, columns, classes).
        cell: height and width of a cell in pixels.
        least_score: of a box.
        most_overlap: intersection over union of two boxes of one class above which the one with
            the lower score is dropped.
    """
    rows, columns, kinds = np.nonzero(scores >= np.float32(least_score))
    best = scores[rows, columns, kinds]
    order = np.argsort(-best, kind="stable")
    rows, columns, kinds, best = (own[order] for own in (rows, columns, kinds, best))
    middle = np.stack([columns, rows], axis=1).astype(np.float32) + np.float32(0.5)
    own = distances[rows, columns]
    boxes = np.concatenate([middle - own[:, :2], middle + own[:, 2:]], axis=1) * np.float32(cell)
    kept: list[int] = []
    for place in range(len(boxes)):
        rivals = [index for index in kept if kinds[index] == kinds[place]]
        if not np.any(overlaps(boxes[[place]], boxes[rivals]) > np.float32(most_overlap)):
            kept.append(place)
    return Found(boxes[kept], best[kept], kinds[kept])


def mean_average_precision(
    found: Sequence[Found],
    boxes: Sequence[np.ndarray],
    classes: Sequence[np.ndarray],
    count: int,
) -> float:
    """Mean over the classes of the area under precision over recall, at an overlap of `MATCH`.

    A box is right if it overlaps with one of its class in the image that no better box has found.
    Precision is that of all boxes at least as good, made to fall with recall (Everingham et al.,
    The PASCAL Visual Object Classes Challenge, 2010, section 4.2, in all points).

    Args:
        found: for each image.
        boxes, classes: what is in each image.
        count: of classes.
    """
    precisions = []
    for kind in range(count):
        scores, right = [], []
        for own, there, kinds in zip(found, boxes, classes, strict=True):
            mine = own.classes == kind
            scores += own.scores[mine].tolist()
            right += _right(own.boxes[mine], there[kinds == kind])
        number = sum(int(np.count_nonzero(kinds == kind)) for kinds in classes)
        precisions.append(_area(np.array(scores), np.array(right, bool), number))
    return float(np.mean(precisions))


def _right(found: np.ndarray, there: np.ndarray) -> list[bool]:
    """Which boxes, the best first, find something that none before has found."""
    free, right = np.ones(len(there), bool), []
    for shared in overlaps(found, there) if len(there) else np.zeros((len(found), 1)):
        best = int(np.argmax(np.where(free, shared, -1))) if free.any() else 0
        hit = bool(free.any() and shared[best] >= MATCH)
        free[best : best + 1] &= not hit
        right.append(hit)
    return right


def _area(scores: np.ndarray, right: np.ndarray, number: int) -> float:
    if not number or not len(scores):
        return 0.0
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    precision = hits / np.arange(1, len(hits) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(hits, prepend=0) * falling) / number)
