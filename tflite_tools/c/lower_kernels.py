"""Operators with weights as C: convolutions and the fully connected layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tflite_tools.arithmetic import geometry
from tflite_tools.c import channel_constants, coding, lowering, packing, pads
from tflite_tools.c.lowering import Context, Growth, Rows, Step, Window
from tflite_tools.schema import codes as file_codes
from tflite_tools.schema.contents import Tensor

_MAX_REACH = 2**15
_SCALES_BYTES = 40  # of what scales the sums of two filters
_FOUR_SCALES_BYTES = 64  # of four filters with Helium
_POSITIONS, _PATCHES_BYTES = 32, 512  # whose patches these keep at most, or four positions
_LEAST_BLOCK = 2048  # bytes of filters whose inputs are widened once; more if the arena has room


@dataclasses.dataclass(frozen=True)
class _RowWise:
    """How a kernel is run over some rows: by a copy of its record with changes."""

    window: Window
    changes: str = lowering.TAKE_ROWS

    def of(self, call: str, record: str, scratch: Callable[[int], int]) -> Rows:
        """The rows of a step with that call, record and scratch memory by the number of rows."""
        own = lowering.of_part("tfb_conv", record, self.changes, call)
        return Rows(self.window, own, scratch)


@dataclasses.dataclass(frozen=True, eq=False)
class _Kernel:
    """Weights with a row per output channel, and what is added to the products.

    Attributes:
        rows: stored weights, int8, (channels, taps).
        bias: int64, (channels,).
        packed: the same weights as codes.
        coded: the codes in a smaller form, which leaves 8 bits for `packed`.
    """

    rows: np.ndarray
    bias: np.ndarray
    packed: packing.Codes
    coded: coding.Coded | None = None


def conv_2d(op: Context) -> Step:
    """CONV_2D: weights (out, h, w, in), of which each of the groups sees `in` channels."""
    source, weights, (images, out) = op.operand(0), op.operand(1), _images(op, 0)
    channels, height, width, depth = _shape(weights, 4)
    groups = images[3] // depth
    whole = depth * groups == images[3] and channels % max(1, groups) == 0
    if not op.need(whole, f"the filter {weights.shape} does not fit {images[3]} input channels"):
        return Step("", (), op.output.index)
    fields, folded = _windows(op, images, height, width)
    op.same_shape((images[0], fields["out_h"], fields["out_w"], channels))
    kernel = _kernel(op, weights, 2, 0)
    fields |= _sizes(images, out, height, width)
    rows = _RowWise(_window(fields)) if images[0] == 1 else None
    if groups > 1 and depth == 1:
        return _step(
            op,
            "tfb_depthwise",
            source,
            weights,
            kernel,
            fields,
            True,
            plane=_plane_bytes,
            rows=rows,
        )
    if height * width * fields["stride_h"] * fields["stride_w"] == 1 and (row := _one_row(images)):
        fields |= row
        pixels = f"part.in_w = part.out_w = (uint16_t)({{rows}} * {out[2]});"
        rows = rows and _RowWise(rows.window, pixels)
    if groups > 1:
        return _step(
            op, "tfb_grouped_conv_2d", source, weights, kernel, fields, folded, groups=groups
        )
    return _step(op, "tfb_conv_2d", source, weights, kernel, fields, folded, rows=rows)


def depthwise(op: Context) -> Step:
    """DEPTHWISE_CONV_2D: weights (1, h, w, channels)."""
    source, weights, (images, out) = op.operand(0), op.operand(1), _images(op, 0)
    one, height, width, channels = _shape(weights, 4)
    whole = one == 1 and channels % images[3] == 0
    op.need(whole, f"the filter {weights.shape} does not fit {images[3]} input channels")
    fields, _ = _windows(op, images, height, width)
    op.same_shape((images[0], fields["out_h"], fields["out_w"], channels))
    kernel = _kernel(op, weights, 2, 3)
    fields |= _sizes(images, out, height, width)
    rows = _RowWise(_window(fields)) if images[0] == 1 else None
    return _step(
        op, "tfb_depthwise", source, weights, kernel, fields, True, plane=_plane_bytes, rows=rows
    )


def transpose_conv(op: Context) -> Step:
    """TRANSPOSE_CONV: weights (out, h, w, in); the activations are input 2."""
    source, weights, (images, out) = op.operand(2), op.operand(1), _images(op, 2)
    channels, height, width, depth = _shape(weights, 4)
    op.need(depth == images[3], f"the filter has {depth} input channels, not {images[3]}")
    op.need(out[0] == images[0] and out[3] == channels, f"the output has shape {out}")
    stride_h, stride_w, padding = _strides(op)
    fields = {"stride_h": stride_h, "stride_w": stride_w, "dilation_h": 1, "dilation_w": 1}
    for axis, (size, stride) in enumerate(((height, stride_h), (width, stride_w)), start=1):
        count, front = geometry.window(out[axis], size, stride, 1, padding)
        op.need(count == images[axis], f"the output size {out[axis]} does not fit {images[axis]}")
        fields[f"pad_{'hw'[axis - 1]}"] = front
    kernel = _kernel(op, weights, 3, 0)
    fields |= _sizes(images, out, height, width)
    return _step(op, "tfb_transpose_conv", source, weights, kernel, fields, None)


def fully_connected(op: Context) -> Step:
    """FULLY_CONNECTED: weights (out, in); a 1x1 convolution over a row of samples."""
    source, weights = op.operand(0), op.operand(1)
    channels, depth = _shape(weights, 2)
    op.need(op.option("weightsFormat") == 0, "shuffled weights")
    total, made = int(np.prod(source.shape)), int(np.prod(op.output.shape))
    op.need(total % depth == 0, f"{total} inputs are no rows of {depth}")
    op.need(made == total // depth * channels, f"the output has shape {op.output.shape}")
    kernel = _kernel(op, weights, 2, 0)
    samples = total // depth
    op.need(samples < 2**16, f"{samples} rows")
    fields = _sizes((1, 1, samples, depth), (1, 1, samples, channels), 1, 1)
    fields |= {"stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1}
    fields |= {"pad_h": 0, "pad_w": 0}
    return _step(op, "tfb_conv_2d", source, weights, kernel, fields, True)


def _images(op: Context, place: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the activations and the output, both (batch, height, width, channels)."""
    return _shape(op.operand(place), 4), _shape(op.output, 4)


def _shape(tensor: Tensor, rank: int) -> tuple[int, ...]:
    if len(tensor.shape) != rank or any(not 1 <= size < 2**16 for size in tensor.shape):
        raise ValueError(f"{tensor.name!r} has the shape {tensor.shape}")
    return tensor.shape


def _strides(op: Context) -> tuple[int, int, int]:
    return op.option("strideH", 1), op.option("strideW", 1), op.option("padding", 0, 1)


def _windows(
    op: Context, images: tuple[int, ...], height: int, width: int
) -> tuple[dict[str, int], bool]:
    """The fields of a sliding window, and whether it never leaves the image."""
    stride_h, stride_w, padding = _strides(op)
    dilation_h, dilation_w = op.option("dilationHFactor", 1), op.option("dilationWFactor", 1)
    above, below, before, behind = op.op.options.get(pads.MARGINS, (0, 0, 0, 0))
    high, wide = images[1] + above + below, images[2] + before + behind
    out_h, pad_h = geometry.window(high, height, stride_h, dilation_h, padding)
    out_w, pad_w = geometry.window(wide, width, stride_w, dilation_w, padding)
    pad_h, pad_w = pad_h + above, pad_w + before
    inside = (
        pad_h == pad_w == 0
        and geometry.never_leaves(images[1], height, stride_h, dilation_h, out_h)
        and geometry.never_leaves(images[2], width, stride_w, dilation_w, out_w)
    )
    reach = (max(height * dilation_h, width * dilation_w), _MAX_REACH)
    op.need(reach[0] <= reach[1], f"a filter that reaches over {reach[0]} values")
    fields = {"out_h": out_h, "out_w": out_w, "stride_h": stride_h, "stride_w": stride_w}
    fields |= {"dilation_h": dilation_h, "dilation_w": dilation_w, "pad_h": pad_h, "pad_w": pad_w}
    return fields, inside


def _window(fields: Mapping[str, int]) -> Window:
    """Which rows of the input a row of the output sees."""
    reach = (fields["k_h"] - 1) * fields["dilation_h"] + 1
    return Window(fields["in_h"], fields["out_h"], fields["stride_h"], fields["pad_h"], reach)


def _sizes(
    images: tuple[int, ...], out: tuple[int, ...], height: int, width: int
) -> dict[str, int]:
    names = ("batch", "in_h", "in_w", "in_c", "out_h", "out_w", "out_c", "k_h", "k_w")
    return dict(zip(names, (*images, *out[1:], height, width), strict=True))


def _one_row(images: tuple[int, ...]) -> dict[str, int]:
    """Sizes of images as rows, which are walked along without a break: one if they are small."""
    batch, height, width, _ = images
    if batch * height * width < 2**16:
        return {"batch": 1, "in_h": 1, "out_h": 1} | dict.fromkeys(
            ("in_w", "out_w"), batch * height * width
        )
    return {}


def _kernel(op: Context, weights: Tensor, bias_place: int, axis: int) -> _Kernel:
    """Weights and biases, checked against each other and the manifest."""
    stored = op.constant(1, ("INT8", "INT4"))
    rows = np.moveaxis(stored, axis, 0).reshape(weights.shape[axis], -1).astype(np.int8)
    bias = np.zeros(len(rows), np.int64)
    tensor = op.tensor(bias_place)
    if tensor is not None:
        bias = op.constant(bias_place, ("INT32",)).astype(np.int64).reshape(-1)
        op.need(bias.size == len(rows), f"{bias.size} biases for {len(rows)} channels")
    return _Kernel(rows, bias, *_packed(op, weights, rows))


def _packed(
    op: Context, weights: Tensor, rows: np.ndarray
) -> tuple[packing.Codes, coding.Coded | None]:
    """The codes of a trained layer at its bits; other weights as narrow as their values allow.

    Codebooks, and channels with bits or codebooks of their own, are coded if that is smaller.
    A normalization whose factor became negative in training turns -2^(b-1) into 2^(b-1): such a
    layer takes the next width.
    """
    entry = op.entries.get(weights.name)
    if entry is None:
        return packing.narrowest(rows), None
    codes = file_codes.unscaled(entry, rows)
    packed = packing.narrowest(rows, entry.prescale)
    if not entry.is_even:
        plain = packing.pack(packed.codes, packed.bits).size
        if (coded := coding.smallest(codes, plain)) is not None:
            return packing.Codes(codes, 8, entry.prescale), coded
    if entry.levels is entry.channel_levels is None:
        largest = int(np.abs(codes.astype(np.int16)).max())
        op.need(largest <= 2 ** (entry.bits - 1), f"codes of more than {entry.bits} bits")
    return packed, None


def _step(
    op: Context,
    function: str,
    source: Tensor,
    weights: Tensor,
    kernel: _Kernel,
    fields: dict[str, int],
    inside: bool | None,
    *,
    plane: Callable[[Mapping[str, int]], int] = lambda _: 0,
    rows: _RowWise | None = None,
    groups: int = 1,
) -> Step:
    """The step.

    Args:
        inside: whether every position sees the whole filter, so that the input's zero point can
            be folded into the biases. None for a kernel that does not use folded ones.
        plane: bytes of scratch memory behind the one filter that is unpacked at a time, by the
            fields; 0 for a kernel that unpacks two and needs no more.
        rows: how it is run over some rows; None if it cannot.
        groups: of a convolution's channels.
    """
    low, high = op.limits()
    factors = channel_constants.factors(op, source, weights, len(kernel.rows))
    if op.reasons or not op.need(_fits32(kernel, factors.shifts), "sums that could leave 32 bits"):
        return Step("", (), op.output.index)
    folded = op.grid(source)[1] * kernel.rows.sum(axis=1, dtype=np.int64) if inside else None
    stored = channel_constants.stored(factors, kernel.bias, folded)
    constants, coded = op.constants, kernel.coded
    stored.note(constants)
    if coded is None:
        packed = packing.pack(kernel.packed.codes, kernel.packed.bits)
    else:
        packed = coded.stream
    record = constants.record("tfb_conv", op.op, {
        "weights": constants.array(packed, weights=True),
        "bias": constants.array(stored.biases),
        "multiplier": 0 if stored.multipliers is None else constants.array(stored.multipliers),
        "shift": constants.array(stored.shifts),
        **fields,
        "in_zero": op.grid(source)[1], "out_zero": op.grid(op.output)[1], "low": low, "high": high,
        "bits": kernel.packed.bits, "prescale": kernel.packed.prescale,
        "form": stored.form,
    })  # fmt: skip
    if coded is not None:
        function, record = function.replace("tfb_", "tfb_coded_"), _coded_record(op, record, coded)
    places = f"{op.address(source)}, {op.address(op.output)}, {{scratch}}"
    scratch = _scratch_bytes(kernel, plane(fields))
    rows = None if coded is not None else rows
    if constants.streamed and function == "tfb_depthwise" and _sees_all(fields):
        call = f"tfb_depthwise_once({record}, {places});"
        return op.step(call, source, scratch=_scratch_bytes(kernel, 0))
    if not function.endswith("conv_2d"):
        call = f"{function}({record}, {places});"
        some = None if rows is None else rows.of(
            call, record, lambda count: _scratch_bytes(kernel, plane({**fields, "out_h": count}))
        )  # fmt: skip
        return op.step(call, source, scratch=scratch, rows=some)
    taps, bits = kernel.rows.shape[1], kernel.packed.bits
    if groups == 1 and _sees_all(fields) and coded is None and taps * bits % 8 == 0:
        scratch = max(scratch, 2 * _words(taps), _arranged_bytes(taps, bits))
        call = f"tfb_dense({record}, {places}, tfb_blocks{bits});"
        return op.step(call, source, scratch=scratch)
    growth, beside = _block(len(kernel.rows) // groups, taps, fields, bool(inside), bits)
    portable = _portable_bytes(taps, fields) if bits == 8 else 0
    needed = (portable, _helium_bytes(len(kernel.rows) // groups, taps))
    scratch = max(scratch, *needed, beside + growth.least * growth.unit)
    widen = "" if coded is not None else ", 0" if bits == 8 else f", tfb_widen{bits}"
    if groups > 1:
        constants.grouped = True
        widen += f", {groups}"
        pixels = fields["batch"] * fields["in_h"] * fields["in_w"]
        scratch += _words(pixels * fields["in_c"] // groups)  # a group's channels of the input
    call = f"{function}({record}, {places}, {{units}}{widen});"
    some = None if rows is None else rows.of(call, record, lambda _: scratch)
    return op.step(call, source, scratch=scratch, growth=growth, rows=some)


def _coded_record(op: Context, conv: str, coded: coding.Coded) -> str:
    """The address of the record that says how the weights of `conv` are coded."""
    constants = op.constants
    constants.coded = True
    levels, widths = (
        "0" if part is None else constants.array(part) for part in (coded.levels, coded.widths)
    )
    fields = {"conv": conv, "levels": levels, "widths": widths, "bits": coded.bits}
    if coded.stride:
        fields["stride"] = coded.stride
    return constants.record("tfb_coded", op.op, fields, "coded")


def _sees_all(fields: dict[str, int]) -> bool:
    """Whether there is one output a channel, whose filter sees the whole input in order."""
    ones = ("batch", "out_h", "out_w", "dilation_h", "dilation_w")
    within = all(fields[f"k_{axis}"] == fields[f"in_{axis}"] for axis in "hw")
    return (
        within and all(fields[name] == 1 for name in ones) and not fields["pad_h"] + fields["pad_w"]
    )


def _block(
    channels: int, taps: int, fields: dict[str, int], inside: bool, bits: int
) -> tuple[Growth, int]:
    """Memory of a convolution in blocks: its pairs of filters, and what is beside them.

    A pair has its factors and its codes as 16-bit numbers, beside it lie two positions' inputs, so
    wide as well, and as bytes if they cannot be widened where they are. On cores without DSP
    instructions more room is of use: for the inputs of two more positions, and for codes of 8 bits,
    which are twice as wide there.
    """
    wide = 4 * (taps + taps % 2)
    most = (channels + 1) // 2
    run = fields["k_w"] * (taps // (fields["k_h"] * fields["k_w"]))
    in_words = fields["k_h"] == 1 or run % 4 == 0
    straight = fields["k_w"] == 1 or fields["dilation_w"] == 1
    beside = wide if inside and in_words and straight else wide + 2 * _words(taps)
    pair = wide + _SCALES_BYTES
    useful = 2 * most + 1 if bits == 8 else most + 1
    return Growth(pair, max(1, min(most, _LEAST_BLOCK // pair)), useful), beside


def _portable_bytes(taps: int, fields: Mapping[str, int]) -> int:
    """What a convolution of 8 bits needs at least on cores without DSP instructions.

    These are a pair of filters as bytes, and patches of an image.
    """
    length = _words(taps)
    flat = fields["k_h"] * fields["k_w"] * fields["stride_h"] * fields["stride_w"] == 1
    kept = 0 if flat else max(4, min(_POSITIONS, _PATCHES_BYTES // length // 4 * 4))
    return kept * length + 2 * length + _SCALES_BYTES


def _helium_bytes(channels: int, taps: int) -> int:
    """The same with Helium: what scales the sums of four filters, three patches, the filters."""
    return _FOUR_SCALES_BYTES + (3 + min(4, channels)) * _words(taps)


def _arranged_bytes(taps: int, bits: int) -> int:
    """Inputs of a dense layer in the order of packed codes with Helium, in whole groups of them."""
    group = {2: 64, 3: 128, 4: 32, 8: 1}[bits]
    return (taps + group - 1) // group * group


def _scratch_bytes(kernel: _Kernel, plane: int) -> int:
    """Filters are unpacked from a multiple of 4 on; those of 8 bits stay where they are."""
    channels, taps = kernel.rows.shape
    if plane:
        return _words(taps) + plane
    if kernel.packed.bits == 8 and kernel.coded is None:
        return 0
    return taps if channels == 1 else _words(taps) + taps


def _words(size: int) -> int:
    return (size + 3) // 4 * 4


def _plane_bytes(fields: Mapping[str, int]) -> int:
    """A channel with its border, and what the last four outputs of its last row read beyond it.

    Where there are DSP instructions it is in 16-bit numbers, behind the filter's in pairs, each
    twice; elsewhere the upper half of its outputs lies in words with the lower one, behind the
    filter's.
    """
    halved = {**fields, "out_h": (fields["out_h"] + 1) // 2}
    (height, width), (lines, _) = _plane_sides(fields), _plane_sides(halved)
    reach = (fields["k_w"] - 1) * fields["dilation_w"] + 1
    pairs = fields["k_h"] * (reach // 2 + 1)
    wide = 8 * pairs + 2 * (height * (width + width % 2) + 6 * fields["stride_w"] + 2)
    taps = fields["k_h"] * fields["k_w"]
    return max(wide, 4 * (taps + lines * width + 3 * fields["stride_w"]))


def _plane_sides(fields: Mapping[str, int]) -> tuple[int, int]:
    """Height and width of what all outputs of a channel see."""
    height, width = (
        (fields[f"out_{axis}"] - 1) * fields[f"stride_{axis}"]
        + (fields[f"k_{axis}"] - 1) * fields[f"dilation_{axis}"]
        + 1
        for axis in "hw"
    )
    return height, width


def _fits32(kernel: _Kernel, shifts: np.ndarray) -> bool:
    """Whether the kernels' numbers stay below 2^31.

    These are the sums of products with codes times 2^(8 - bits), as they are unpacked, and twice
    the file's sums with their biases, shifted left. The half that rounds these once more, at most
    2^30, then fits as well.
    """
    products = 255 * np.abs(kernel.rows.astype(np.int64)).sum(axis=1)
    unpacked = products // kernel.packed.prescale * 2 ** (8 - kernel.packed.bits)
    left = np.clip(shifts, 0, 31).astype(np.int64)
    twice = 2 * (np.abs(kernel.bias) + products) << left
    return bool((np.maximum(twice, unpacked) < 2**31).all())


LOWERINGS: dict[str, Callable[[Context], Step]] = {
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": fully_connected,
    "TRANSPOSE_CONV": transpose_conv,
}
