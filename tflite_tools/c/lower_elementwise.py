"""Operators that compute with activations alone as C."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from tflite_tools.arithmetic import fixed_point, geometry, lookup_tables, multipliers
from tflite_tools.c import lowering, pads
from tflite_tools.c.lowering import Context, Rows, Step, Window
from tflite_tools.schema import value_tables
from tflite_tools.schema.contents import Tensor

_LARGEST_SHIFT = 21  # whose zero point, half and sum together have 31 bits
_WINDOW = ("in", "out", "stride", "pad", "k")
_SUM_BITS = 12  # integer bits of SOFTMAX's sum of exponentials


def lookup(op: Context) -> Step:
    """An operator that maps each int8 value by itself, as a table of 256."""
    source = op.operand(0)
    op.same_shape(source.shape)
    table = op.constants.array(_table(op, source))
    return _looked_up(op, table, source)


def own_table(op: Context) -> Step:
    """A table of the file's own."""
    source = op.operand(0)
    op.grid(source)
    op.same_shape(source.shape)
    values = op.constants.array(op.constant(1, ("INT8",)))
    return _looked_up(op, values, source)


def _looked_up(op: Context, table: str, source: Tensor) -> Step:
    call = f"tfb_lookup({table}, {op.address(source)}, {op.address(op.output)}, {{count}});"
    whole = call.replace("{count}", str(math.prod(source.shape)))
    return op.step(whole, source, in_place=True, rows=op.pointwise(call))


def _table(op: Context, source: Tensor) -> np.ndarray:
    taken, made, name = op.grid(source), op.grid(op.output), op.op.name
    if name in ("LOGISTIC", "TANH"):
        wanted = (1.0 / 256.0, -128) if name == "LOGISTIC" else (1.0 / 128.0, 0)
        op.need((float(made[0]), made[1]) == wanted, f"an output grid other than {wanted}")
    if name == "RELU6":
        op.same_grids(source)
    return lookup_tables.of_operator(name, taken, made, op.op.options.get("alpha"))


def add(op: Context) -> Step:
    """ADD and SUB: both operands at twice the larger scale, 20 bits finer."""
    function = "tfb_add" if op.op.name == "ADD" else "tfb_sub"
    factors = multipliers.addition(*_scales(op))
    widening = [multipliers.FINER_BITS - 1 + shift for _, shift in factors[:2]]
    if any(multiplier != multipliers.HALF for multiplier, _ in factors) or min(widening) < 0:
        op.need(factors.whole[1] <= 0, "an output scale too fine for its operands'")
        if function == "tfb_add" and -_LARGEST_SHIFT <= factors.whole[1] < 0:
            return _equal(op, factors) or _pair(op, function, *factors)
        return _pair(op, function, *factors)
    op.constants.by_shifts = True
    first, second, result = *widening, -factors[2][1]
    return _pair(op, f"{function}_shifts", (0, first), (0, second), (0, result), shifts_only=True)


def _equal(op: Context, factors: multipliers.Addition) -> Step | None:
    """ADD of two tensors of one shape; None for others."""
    a, b = op.operand(0), op.operand(1)
    if not a.shape == b.shape == op.output.shape:
        return None
    first, second, whole = factors
    if first != (multipliers.HALF, 0):
        a, b, first, second = b, a, second, first
    low, high = op.limits()
    record = op.constants.record("tfb_pair", op.op, {
        "multiplier_b": second[0], "multiplier": whole[0],
        "shift_b": second[1], "shift": whole[1],
        "zero_a": op.grid(a)[1], "zero_b": op.grid(b)[1], "zero": op.grid(op.output)[1],
        "low": low, "high": high,
    })  # fmt: skip
    places = ", ".join(op.address(tensor) for tensor in (a, b, op.output))
    call = f"tfb_add_equal({record}, {places}, {{count}});"
    rows = op.pointwise(call)
    call = call.replace("{count}", str(math.prod(a.shape)))
    return op.step(call, a, b, in_place=True, rows=rows)


def multiply(op: Context) -> Step:
    """MUL."""
    factor = multipliers.product(*_scales(op))
    return _pair(op, "tfb_mul" if factor[1] > 0 else "tfb_mul_down", (0, 0), (0, 0), factor)


def prelu(op: Context) -> Step:
    """PRELU; the slopes are the second operand."""
    straight, bent = multipliers.prelu(*_scales(op))
    return _pair(op, "tfb_prelu", straight, (0, 0), bent)


def _scales(op: Context) -> tuple[np.float32, np.float32, np.float32]:
    """Of both operands and the output."""
    return op.grid(op.operand(0))[0], op.grid(op.operand(1))[0], op.grid(op.output)[0]


def extreme(op: Context) -> Step:
    """MAXIMUM and MINIMUM of stored values."""
    op.same_grids(op.operand(0), op.operand(1))
    return _pair(op, f"tfb_{op.op.name.lower()}", (0, 0), (0, 0), (0, 0))


def _pair(
    op: Context,
    function: str,
    first: tuple[int, int],
    second: tuple[int, int],
    result: tuple[int, int],
    *,
    shifts_only: bool = False,
) -> Step:
    """A step over two operands, of which either may be repeated along axes."""
    a, b = op.operand(0), op.operand(1)
    shape = op.output.shape
    op.same_shape(np.broadcast_shapes(a.shape, b.shape))
    steps = [geometry.broadcast_steps(tensor.shape, shape) for tensor in (a, b)]
    sizes, (step_a, step_b) = geometry.collapse(shape, *steps)
    low, high = op.limits()
    shifts = [shift for _, shift in (first, second, result)]
    # A product of two operands has up to 16 bits.
    op.need(shifts_only or max(shifts) < 15, "scales too far apart for 32 bits")
    record = op.constants.record("tfb_pair", op.op, {
        "size": sizes, "step_a": step_a, "step_b": step_b,
        "multiplier_a": first[0], "multiplier_b": second[0], "multiplier": result[0],
        "shift_a": first[1], "shift_b": second[1], "shift": result[1],
        "zero_a": op.grid(a)[1], "zero_b": op.grid(b)[1], "zero": op.grid(op.output)[1],
        "low": low, "high": high,
    })  # fmt: skip
    places = ", ".join(op.address(tensor) for tensor in (a, b, op.output))
    call, rows = f"tfb_combine({record}, {function}, {places});", None
    side_by_side = step_a[-1] == step_b[-1] == 1
    if function == "tfb_mul_down" and side_by_side and -_LARGEST_SHIFT <= result[1] < 0:
        call = f"tfb_mul_rows({record}, {places});"
    if a.shape == b.shape == shape:
        some = lowering.of_part("tfb_pair", record, "part.size[3] = {count};", call)
        rows = op.pointwise(some)
    return op.step(call, a, b, rows=rows)


def pool(op: Context) -> Step:
    """AVERAGE_POOL_2D and MAX_POOL_2D."""
    source = op.operand(0)
    op.same_grids(source)
    if len(source.shape) != 4:
        raise ValueError(f"{source.name!r} has the shape {source.shape}")
    fields: dict[str, object] = {}
    made = []
    above, below, before, behind = op.op.options.get(pads.MARGINS, (0, 0, 0, 0))
    for axis, letter, ends in ((1, "h", (above, below)), (2, "w", (before, behind))):
        name = {"h": "Height", "w": "Width"}[letter]
        size, stride = op.option(f"filter{name}", 1), op.option(f"stride{letter.upper()}", 1)
        padding = op.option("padding", 0, 1)
        count, front = geometry.window(source.shape[axis] + sum(ends), size, stride, 1, padding)
        front += ends[0]
        made.append(count)
        fields |= {f"in_{letter}": source.shape[axis], f"out_{letter}": count}
        fields |= {f"k_{letter}": size, f"stride_{letter}": stride, f"pad_{letter}": front}
    batch, channels = source.shape[0], source.shape[3]
    op.same_shape((batch, *made, channels))
    low, high = op.limits()
    fields |= {"batch": batch, "channels": channels, "low": low, "high": high}
    record = op.constants.record("tfb_pool", op.op, fields)
    average = int(op.op.name == "AVERAGE_POOL_2D")
    places = f"{op.address(source)}, {op.address(op.output)}"
    call = f"tfb_pool_2d({record}, {average}, {places});"
    rows = None
    if batch == 1:
        window = Window(*(int(str(fields[f"{name}_h"])) for name in _WINDOW))
        some = lowering.of_part("tfb_pool", record, lowering.TAKE_ROWS, call)
        rows = Rows(window, some, lambda _: 0)
    return op.step(call, source, rows=rows)


def reduction(op: Context) -> Step:
    """MEAN and REDUCE_MAX over neighbouring axes."""
    source, axes = op.operand(0), op.constant(1, ("INT32",)).reshape(-1)
    rank = len(source.shape)
    if not all(-rank <= axis < rank for axis in axes):
        raise ValueError(f"axes {axes.tolist()} of {rank}")
    sizes = _split(source.shape, {int(axis) % rank for axis in axes})
    made = math.prod(op.output.shape)
    op.need(made == sizes.outer * sizes.inner, f"the output has shape {op.output.shape}")
    (taken, zero_point), (scale, out_zero) = op.grid(source), op.grid(op.output)
    multiplier, shift = multipliers.mean(taken, scale, sizes.count)
    function = "tfb_mean" if op.op.name == "MEAN" else "tfb_reduce_max"
    if op.op.name != "MEAN":
        op.same_grids(source)
    record = op.constants.record("tfb_reduce", op.op, {
        **vars(sizes),
        "multiplier": multiplier, "shift": shift, "in_zero": zero_point, "out_zero": out_zero,
    })  # fmt: skip
    fits = 255 * sizes.count << max(shift, 0) < 2**31 - 2**8
    op.need(fits, f"{sizes.count} values to add up, at a scale too fine for 32 bits")
    return op.step(f"{function}({record}, {op.address(source)}, {op.address(op.output)});", source)


@dataclasses.dataclass(frozen=True)
class _Reduced:
    """How many values lie before, along and behind the reduced axes."""

    outer: int
    count: int
    inner: int


def _split(shape: Sequence[int], axes: set[int]) -> _Reduced:
    # Axes of one value do not matter, wherever they are.
    long = [axis for axis, size in enumerate(shape) if size > 1]
    reduced = [place for place, axis in enumerate(long) if axis in axes]
    if not reduced:
        return _Reduced(math.prod(shape), 1, 1)
    first, last = reduced[0], reduced[-1] + 1
    if len(reduced) != last - first:
        raise ValueError(f"axes {sorted(axes)}, which are not neighbours")
    sizes = [shape[axis] for axis in long]
    return _Reduced(*map(math.prod, (sizes[:first], sizes[first:last], sizes[last:])))


def softmax(op: Context) -> Step:
    """SOFTMAX over the last axis."""
    source, beta = op.operand(0), op.op.options.get("beta")
    if not isinstance(beta, float) or not math.isfinite(beta):
        raise ValueError(f"beta {beta!r}")
    op.same_shape(source.shape)
    scale, zero_point = op.grid(op.output)
    op.need((float(scale), zero_point) == (1.0 / 256.0, -128), "an output grid other than 1/256")
    depth = source.shape[-1]
    op.need(depth < 2**_SUM_BITS, f"{depth} values to add up")
    if op.reasons:
        return Step("", (), op.output.index)
    multiplier, shift = multipliers.softmax(op.grid(source)[0], beta)
    record = op.constants.record("tfb_softmax_op", op.op, {
        "outer": math.prod(source.shape[:-1]), "depth": depth, "multiplier": multiplier,
        "lowest": -fixed_point.input_radius(multipliers.EXP_BITS, shift), "shift": shift,
    })  # fmt: skip
    places = f"{op.address(source)}, {op.address(op.output)}"
    return op.step(f"tfb_softmax({record}, {places});", source)


LOWERINGS: dict[str, Callable[[Context], Step]] = {
    value_tables.LOOKUP: own_table,
    "ADD": add,
    "AVERAGE_POOL_2D": pool,
    "HARD_SWISH": lookup,
    "LEAKY_RELU": lookup,
    "LOGISTIC": lookup,
    "MAXIMUM": extreme,
    "MAX_POOL_2D": pool,
    "MEAN": reduction,
    "MINIMUM": extreme,
    "MUL": multiply,
    "PRELU": prelu,
    "QUANTIZE": lookup,
    "REDUCE_MAX": reduction,
    "RELU": lookup,
    "RELU6": lookup,
    "SOFTMAX": softmax,
    "SUB": add,
    "TANH": lookup,
}
