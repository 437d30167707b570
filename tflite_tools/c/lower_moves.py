"""Operators that move numbers about as C: reshaping, slicing, padding, joining, resizing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tflite_tools.arithmetic import geometry, interpolation
from tflite_tools.c.lowering import Context, Step


def same_memory(op: Context) -> Step:
    """RESHAPE and its relatives: the same bytes under another name."""
    source = op.operand(0)
    op.same_grids(source)
    made = math.prod(op.output.shape)
    op.need(made == math.prod(source.shape), f"the output has shape {op.output.shape}")
    op.need(source.data is None, "its input is a constant")
    return Step("", (source.index,), op.output.index, same_memory=True)


def strided_slice(op: Context) -> Step:
    """STRIDED_SLICE with constant bounds."""
    shape = op.operand(0).shape
    bounds = [op.constant(place).reshape(-1).tolist() for place in (1, 2, 3)]
    if any(len(values) != len(shape) for values in bounds):
        raise ValueError("bounds for some of the axes only")
    for mask in ("ellipsisMask", "newAxisMask", "offset"):
        op.need(not op.op.options.get(mask), f"option {mask}")
    masks = [op.option(name, 0, 2**16) for name in ("beginMask", "endMask", "shrinkAxisMask")]
    ranges, kept = [], []
    for axis, (size, begin, end, step) in enumerate(zip(shape, *bounds, strict=True)):
        if step == 0:
            raise ValueError("a step of 0")
        no_begin, no_end, single = (bool(mask >> axis & 1) for mask in masks)
        if single:
            first = begin + size if begin < 0 else begin
            ranges.append(range(first, first + 1))
        else:
            cut = slice(None if no_begin else begin, None if no_end else end, step)
            ranges.append(range(*cut.indices(size)))
            kept.append(len(ranges[-1]))
    op.same_shape(kept)
    return _gather(op, ranges)


def slice_(op: Context) -> Step:
    """SLICE with constant bounds."""
    shape = op.operand(0).shape
    begins, counts = (op.constant(place).reshape(-1).tolist() for place in (1, 2))
    if not len(begins) == len(counts) == len(shape):
        raise ValueError("bounds for some of the axes only")
    ranges = [
        range(begin, size if count == -1 else begin + count)
        for size, begin, count in zip(shape, begins, counts, strict=True)
    ]
    op.same_shape([len(values) for values in ranges])
    return _gather(op, ranges)


def _gather(op: Context, ranges: Sequence[range]) -> Step:
    shape = op.operand(0).shape
    pairs = list(zip(ranges, shape, strict=True))
    if any(not values or not 0 <= min(values) <= max(values) < size for values, size in pairs):
        raise ValueError("a slice that is empty or reaches outside of its input")
    strides = geometry.row_major(shape)
    start = sum(values.start * stride for values, stride in zip(ranges, strides, strict=True))
    steps = [values.step * stride for values, stride in zip(ranges, strides, strict=True)]
    return _walk(op, start, [len(values) for values in ranges], steps)


def transpose(op: Context) -> Step:
    """TRANSPOSE with a constant order."""
    shape = op.operand(0).shape
    order = op.constant(1, ("INT32",)).reshape(-1).tolist()
    if sorted(order) != list(range(len(shape))):
        raise ValueError(f"the order {order}")
    op.same_shape([shape[axis] for axis in order])
    strides = geometry.row_major(shape)
    return _walk(op, 0, [shape[axis] for axis in order], [strides[axis] for axis in order])


def _walk(op: Context, start: int, sizes: Sequence[int], steps: Sequence[int]) -> Step:
    source = op.operand(0)
    op.same_grids(source)
    few, (moves,) = geometry.collapse(sizes, steps)
    fields = {"start": start, "size": few, "step": moves}
    record = op.constants.record("tfb_gather", op.op, fields)
    places = f"{op.address(source)}, {op.address(op.output)}"
    return op.step(f"tfb_gather_4d({record}, {places});", source)


def pad(op: Context) -> Step:
    """PAD with zeros, PADV2 with a constant; the input is spread over an output of padding."""
    source, made = op.operand(0), op.output.shape
    op.same_grids(source)
    margins = op.constant(1)
    if margins.shape != (len(source.shape), 2) or margins.min() < 0:
        raise ValueError(f"paddings {margins.tolist()}")
    op.same_shape([size + int(sum(pair)) for size, pair in zip(source.shape, margins, strict=True)])
    fill = op.grid(op.output)[1]
    if op.op.name == "PADV2":
        op.same_grids(op.operand(2))
        fill = int(op.constant(2, ("INT8",)).reshape(-1)[0])
    strides = geometry.row_major(made)
    start = sum(int(m) * stride for m, stride in zip(margins[:, 0], strides, strict=True))
    sizes, (_, steps) = geometry.collapse(source.shape, geometry.row_major(source.shape), strides)
    if steps[3] not in (0, 1):
        # The innermost values are copied as a block of neighbours: here of one value.
        sizes, (steps,) = geometry.collapse(source.shape, strides, rank=3)
        sizes, steps = [*sizes, 1], [*steps, 1]
    record = op.constants.record(
        "tfb_gather", op.op, {"start": start, "size": sizes, "step": steps}
    )
    out = op.address(op.output)
    call = f"memset({out}, {fill}, {math.prod(made)});\n"
    return op.step(f"{call}  tfb_scatter_4d({record}, {op.address(source)}, {out});", source)


def concatenation(op: Context) -> Step:
    """CONCATENATION: each input goes to its places in the output."""
    parts = [op.operand(place) for place in range(len(op.op.inputs))]
    made, rank = op.output.shape, len(op.output.shape)
    axis = op.op.options.get("axis")
    if not isinstance(axis, (int, np.integer)) or not -rank <= axis < rank:
        raise ValueError(f"the axis {axis!r}")
    axis = int(axis) % rank
    op.same_grids(*parts)
    op.need(op.op.activation == "NONE", f"the fused activation {op.op.activation}")
    if any(len(part.shape) != rank for part in parts):
        raise ValueError("inputs of several ranks")
    whole = list(made)
    whole[axis] = sum(part.shape[axis] for part in parts)
    for part in parts:
        others = [size for place, size in enumerate(part.shape) if place != axis]
        wanted = [size for place, size in enumerate(made) if place != axis]
        op.need(others == wanted, f"{part.name!r} has the shape {part.shape}")
    op.same_shape(whole)
    count, step, lines, offset = math.prod(made[:axis]), math.prod(made[axis:]), [], 0
    for part in parts:
        block = math.prod(part.shape[axis:])
        out = f"{op.address(op.output)} + {offset}"
        lines.append(f"tfb_interleave({op.address(part)}, {out}, {count}, {block}, {step});")
        offset += block
    return op.step("\n  ".join(lines), *parts)


def resize(op: Context) -> Step:
    """RESIZE_NEAREST_NEIGHBOR: the rows and columns to copy, computed in float32 as TFLM does."""
    sizes, corners, centers = _resized(op)
    rows, columns = (op.constants.array(_nearest(*pair, corners, centers)) for pair in sizes)
    return _resizing(op, "tfb_resize", "tfb_resize_nearest", {"rows": rows, "columns": columns})


def resize_bilinear(op: Context) -> Step:
    """RESIZE_BILINEAR: the rows and columns between which it interpolates, and their shares."""
    sizes, corners, centers = _resized(op)
    op.need(not (corners and centers), "both halfPixelCenters and alignCorners")
    settings = {"half_pixel_centers": centers, "align_corners": corners}
    axes = [interpolation.tflm(*pair, **settings) for pair in sizes]
    fields = {
        name: op.constants.array(values.astype(np.uint16))
        for axis, names in zip(axes, (("rows", "row_shares"), ("columns", "column_shares")),
                               strict=True)
        for name, values in zip(names, (axis.low, axis.share), strict=True)
    }  # fmt: skip
    return _resizing(op, "tfb_bilinear", "tfb_resize_bilinear", fields)


def _resized(op: Context) -> tuple[list[tuple[int, int]], bool, bool]:
    """(old, new) height and width, and the options alignCorners and halfPixelCenters."""
    source, made = op.operand(0), op.output.shape
    op.same_grids(source)
    if len(source.shape) != 4 or len(made) != 4:
        raise ValueError(f"{source.name!r} has the shape {source.shape}")
    batch, height, width, channels = source.shape
    size = op.constant(1, ("INT32",)).reshape(-1).tolist()
    op.same_shape((batch, *size, channels))
    corners, centers = (bool(op.op.options.get(n)) for n in ("alignCorners", "halfPixelCenters"))
    return [(height, made[1]), (width, made[2])], corners, centers


def _resizing(op: Context, record_type: str, function: str, fields: dict[str, str]) -> Step:
    source, (_, out_h, out_w, _) = op.operand(0), op.output.shape
    batch, height, width, channels = source.shape
    record = op.constants.record(record_type, op.op, {
        **fields, "batch": batch, "in_h": height, "in_w": width,
        "channels": channels, "out_h": out_h, "out_w": out_w,
    })  # fmt: skip
    places = f"{op.address(source)}, {op.address(op.output)}"
    return op.step(f"{function}({record}, {places});", source)


def _nearest(old: int, new: int, corners: bool, centers: bool) -> np.ndarray:
    """Which of `old` values each of `new` ones is a copy of, uint16."""
    aligned = corners and new > 1
    scale = (
        np.float32(old - 1) / np.float32(new - 1) if aligned else np.float32(old) / np.float32(new)
    )
    places = (np.arange(new, dtype=np.float32) + np.float32(0.5 if centers else 0.0)) * scale
    nearest = np.floor(places + np.float32(0.5)) if corners else np.floor(places)
    return np.clip(nearest, 0, old - 1).astype(np.uint16)


LOWERINGS: dict[str, Callable[[Context], Step]] = {
    "CONCATENATION": concatenation,
    "EXPAND_DIMS": same_memory,
    "PAD": pad,
    "PADV2": pad,
    "RESHAPE": same_memory,
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize,
    "SLICE": slice_,
    "SQUEEZE": same_memory,
    "STRIDED_SLICE": strided_slice,
    "TRANSPOSE": transpose,
}
