"""Random small nets out of every kind of layer in the table, for hypothesis.

A `Net` is the text of a program, so that a counter-example can be read, pasted and run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras as keras_3
import numpy as np
import tensorflow as tf
import tf_keras
from hypothesis import strategies as st

import tfbinreg

OWN = {"tf_keras": tf_keras, "keras": keras_3}
MOST_NODES = 9
NAMINGS = {"tf_keras": ("{}", "{}", "{}.a-b"), "keras": ("{}", "{}", "_{}", "{} ü")}
LARGEST = 600  # numbers in a tensor
Shape = tuple[int, ...]  # without the batch axis
Draw = Callable[[st.SearchStrategy], Any]
Made = tuple[str, Shape] | None  # an expression of the tensor {x}, and the shape of its result


@dataclasses.dataclass(frozen=True)
class Net:
    """A model as a program, and how it is quantized.

    Attributes:
        own: the Keras it is made with, a key of `OWN`.
        lines: assignments, in order; each is of a tensor.
        inputs: names of the tensors the model takes.
        outputs: names of those it returns; one may be there twice.
        shapes: of the inputs.
        recipe: what it is quantized with.
        positive: whether no input is negative.
        seed: of weights and data.
    """

    own: str
    lines: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[Shape, ...]
    recipe: tfbinreg.Recipe
    positive: bool
    seed: int

    def __repr__(self) -> str:
        plain = dataclasses.asdict(tfbinreg.Recipe())
        options = {k: v for k, v in dataclasses.asdict(self.recipe).items() if v != plain[k]}
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        return "\n".join(
            (
                "",
                f"import {self.own} as own",
                "layers = own.layers",
                *self.lines,
                f"model = own.Model([{', '.join(self.inputs)}], [{', '.join(self.outputs)}])",
                f"recipe = tfbinreg.Recipe({given})",
                f"# {'positive' if self.positive else 'signed'} inputs, seed {self.seed}",
            )
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    def build(self) -> Any:
        """The float model, with weights that are not those it starts with."""
        own = OWN[self.own]
        own.backend.clear_session()
        scope = scope_of(own)
        for line in self.lines:
            exec(line, scope)
        model = own.Model([scope[n] for n in self.inputs], [scope[n] for n in self.outputs])
        randomize(model, self.seed)
        return model

    def data(self, count: int, seed: int) -> list[np.ndarray]:
        """Inputs, one array for each."""
        random = np.random.default_rng([self.seed, seed])
        draw = random.random if self.positive else random.standard_normal
        return [draw((count, *shape)).astype(np.float32) for shape in self.shapes]


def scope_of(own: Any) -> dict[str, Any]:
    """What the lines of a program may name."""
    return {"own": own, "layers": own.layers, "np": np, "tf": tf}


def randomize(model: Any, seed: int) -> None:
    """Weights as after a training: biases, statistics, factors of any sign, some channels dead."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        name, shape = weight.name.split("/")[-1].split(":")[0], tuple(weight.shape)
        if name in ("gamma", "moving_variance", "variance"):
            value = random.uniform(0.3, 1.5, shape)
            if name == "gamma":
                value *= random.choice([1.0, 1.0, 1.0, -1.0, 0.0][: 4 + (len(value) > 1)], shape)
        elif "kernel" in name:
            value = random.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1])))
        elif name in ("bias", "beta", "moving_mean", "alpha", "mean"):
            value = random.normal(size=shape) / 4
        else:  # counters and random states
            continue
        weight.assign(value)


# --- The vocabulary: a kind's expression for a tensor of some shape, None if it cannot take that.

NAMED = "name={name!r}"
ACTIVATIONS = ("linear", "relu", "relu6", "softmax", "sigmoid", "tanh", "swish", "hard_sigmoid")


def _layer(text: str, shape: Shape) -> Made:
    """A layer as it stands before its name; `text` ends behind the bracket or an argument."""
    return f"layers.{text}{'' if text.endswith('(') else ', '}{NAMED})({{x}})", shape


def _window(size: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    """How many windows there are along an axis."""
    if padding == "same":
        return -(-size // stride)
    return (size - (kernel - 1) * dilation - 1) // stride + 1


def _activation(draw: Draw) -> str:
    name = draw(st.sampled_from(["linear", "relu", *ACTIVATIONS]))
    return "" if name == "linear" else f", activation={name!r}"


def _bias(draw: Draw) -> str:
    return draw(st.sampled_from(["", ", use_bias=False"]))


def _argument(sizes: tuple[Any, ...]) -> Any:
    """As layers over a line take it, or those over an image."""
    return sizes if len(sizes) > 1 else sizes[0]


def _conv(name: str, *, filters: bool = False, multiplier: bool = False) -> Any:
    def made(draw: Draw, shape: Shape) -> Made:
        kernel = tuple(draw(st.integers(1, min(3, size))) for size in shape[:-1])
        padding = draw(st.sampled_from(["valid", "same"]))
        stride, dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
        places = [
            _window(size, own, stride, dilation, padding)
            for size, own in zip(shape[:-1], kernel, strict=True)
        ]
        if min(places) < 1:
            return None
        count = draw(st.integers(1, 5)) if filters else None
        depth = draw(st.integers(1, 2)) if multiplier else 1
        text = (
            f"{name}({f'{count}, ' if filters else ''}{_argument(kernel)}, strides={stride}, "
            f"dilation_rate={dilation}, padding={padding!r}"
            f"{f', depth_multiplier={depth}' if multiplier else ''}{_bias(draw)}{_activation(draw)}"
        )
        return _layer(text, (*places, count or shape[-1] * depth))

    return made


def _transpose(draw: Draw, shape: Shape) -> Made:
    filters, kernel, stride = (draw(st.integers(1, most)) for most in (4, 3, 2))
    padding = draw(st.sampled_from(["valid", "same"]))
    longer = max(kernel - stride, 0) if padding == "valid" else 0
    text = (
        f"Conv2DTranspose({filters}, {kernel}, strides={stride}, padding={padding!r}"
        f"{_bias(draw)}{_activation(draw)}"
    )
    return _layer(text, (*(size * stride + longer for size in shape[:-1]), filters))


def _dense(draw: Draw, shape: Shape) -> Made:
    units = draw(st.integers(1, 6))
    return _layer(f"Dense({units}{_bias(draw)}{_activation(draw)}", (*shape[:-1], units))


def _norm(draw: Draw, shape: Shape) -> Made:
    options = draw(st.sampled_from(["", "center=False", "scale=False"]))
    return _layer(f"BatchNormalization({options}", shape)


def _numbers(draw: Draw, count: int, low: float, high: float) -> list[float]:
    return [draw(st.integers(round(16 * low), round(16 * high))) / 16 for _ in range(count)]


def _normalization(draw: Draw, shape: Shape) -> Made:
    mean, variance = (_numbers(draw, shape[-1], *ends) for ends in ((-1, 1), (0.25, 4)))
    return _layer(f"Normalization(mean={mean}, variance={variance}", shape)


def _rescaling(draw: Draw, shape: Shape) -> Made:
    (scale,), (offset,) = _numbers(draw, 1, 0.25, 2), _numbers(draw, 1, -1, 1)
    return _layer(f"Rescaling({scale}, {offset}", shape)


def _constant(draw: Draw, shape: Shape) -> Made:
    forms = ["{x} * 0.5", "{x} + 0.25", "3.0 - {x}", "{x} / -4.0", "-{x}", "{x} * 0.5 + 1.0"]
    forms += [f"{{x}} {sign} np.float32({_numbers(draw, shape[-1], 0.25, 2)})" for sign in "*+"]
    return draw(st.sampled_from(forms)), shape


def _relu(draw: Draw, shape: Shape) -> Made:
    given = draw(st.sampled_from(["", "6.0", "1.5", "negative_slope=0.25"]))
    return _layer(f"ReLU({given}", shape)


def _hard_swish(draw: Draw, shape: Shape) -> Made:
    return "{x} * layers.ReLU(6.0)({x} + 3.0) / 6.0", shape


def _function(draw: Draw, shape: Shape) -> Made:
    return _layer(f"Activation({draw(st.sampled_from(ACTIVATIONS))!r}", shape)


def _prelu(draw: Draw, shape: Shape) -> Made:
    shared = f"shared_axes={list(range(1, len(shape)))}" if len(shape) > 1 else ""
    return _layer(f"PReLU({shared}", shape)


def _same(text: str) -> Any:
    """A layer that keeps the shape."""
    return lambda draw, shape: _layer(text, shape)


def _pool(name: str) -> Any:
    def made(draw: Draw, shape: Shape) -> Made:
        pool = tuple(draw(st.integers(1, min(3, size))) for size in shape[:-1])
        stride, padding = draw(st.integers(1, 2)), draw(st.sampled_from(["valid", "same"]))
        places = [
            _window(size, own, stride, 1, padding)
            for size, own in zip(shape[:-1], pool, strict=True)
        ]
        text = f"{name}({_argument(pool)}, strides={stride}, padding={padding!r}"
        return _layer(text, (*places, shape[-1]))

    return made


def _whole(name: str) -> Any:
    def made(draw: Draw, shape: Shape) -> Made:
        kept = draw(st.booleans())
        return _layer(
            f"{name}(keepdims={kept}", ((1,) * (len(shape) - 1) if kept else ()) + shape[-1:]
        )

    return made


def _upsampling(name: str) -> Any:
    def made(draw: Draw, shape: Shape) -> Made:
        sizes = tuple(draw(st.integers(1, 2)) for _ in shape[:-1])
        longer = [size * factor for size, factor in zip(shape[:-1], sizes, strict=True)]
        return _layer(f"{name}({_argument(sizes)}", (*longer, shape[-1]))

    return made


def _border(name: str, sign: int) -> Any:
    """Padding (+1) or cropping (-1) of none, one or two at either end."""

    def made(draw: Draw, shape: Shape) -> Made:
        ends = st.tuples(st.integers(0, 2), st.integers(0, 2))
        sizes = tuple(draw(ends) for _ in shape[:-1])
        other = [size + sign * sum(two) for size, two in zip(shape[:-1], sizes, strict=True)]
        return _layer(f"{name}({_argument(sizes)}", (*other, shape[-1])) if min(other) > 0 else None

    return made


def _slice(draw: Draw, shape: Shape) -> Made:
    forms = ["{x}[..., :1]", "{x}[..., ::2]", "{x}[:, 1:]", "{x}[:, :-1]", "{x}[:, ::2]"]
    form = draw(st.sampled_from(forms))
    result = eval(form.format(x="x"), {"x": np.empty((1, *shape))}).shape[1:]
    return (form, result) if min(result) > 0 else None


def _reshape(draw: Draw, shape: Shape) -> Made:
    size = int(np.prod(shape))
    forms = [(size,), (1, size), (size, 1), (1, 1, size), shape[::-1], (-1, shape[-1])]
    forms += [(part, size // part) for part in (2, 3, 4) if size % part == 0]
    forms += [(2, part, size // (2 * part)) for part in (2, 3) if size % (2 * part) == 0]
    form = draw(st.sampled_from(forms))
    return _layer(f"Reshape({form}", np.empty(shape).reshape(form).shape)


def _flatten(draw: Draw, shape: Shape) -> Made:
    return _layer("Flatten(", (int(np.prod(shape)),))


def _nested(draw: Draw, shape: Shape) -> Made:
    text, result = draw(st.sampled_from([_dense, _norm, _relu, _function, _rescaling]))(draw, shape)
    inner = text.removesuffix("({x})").replace(NAMED, "name='inner'")
    model = f"own.Sequential([layers.Input({shape}), {inner}, layers.ReLU()], {NAMED})"
    return f"{model}({{x}})", result


# By the names of `tfbinreg.kinds.KINDS`. ChannelAffine, HardSwish and Slice are written as users
# write them.
VOCABULARY: dict[str, Callable[[Draw, Shape], Made]] = {
    "Conv2D": _conv("Conv2D", filters=True),
    "DepthwiseConv2D": _conv("DepthwiseConv2D", multiplier=True),
    "Conv2DTranspose": _transpose,
    "Dense": _dense,
    "SeparableConv2D": _conv("SeparableConv2D", filters=True, multiplier=True),
    "Conv1D": _conv("Conv1D", filters=True),
    "DepthwiseConv1D": _conv("DepthwiseConv1D", multiplier=True),
    "SeparableConv1D": _conv("SeparableConv1D", filters=True, multiplier=True),
    "BatchNormalization": _norm,
    "ChannelAffine": _constant,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "ReLU": _relu,
    "LeakyReLU": _same("LeakyReLU(0.1"),
    "PReLU": _prelu,
    "HardSwish": _hard_swish,
    "Activation": _function,
    "Softmax": _same("Softmax("),
    "GlobalAveragePooling2D": _whole("GlobalAveragePooling2D"),
    "GlobalAveragePooling1D": _whole("GlobalAveragePooling1D"),
    "AveragePooling2D": _pool("AveragePooling2D"),
    "AveragePooling1D": _pool("AveragePooling1D"),
    "MaxPooling2D": _pool("MaxPooling2D"),
    "MaxPooling1D": _pool("MaxPooling1D"),
    "GlobalMaxPooling2D": _whole("GlobalMaxPooling2D"),
    "GlobalMaxPooling1D": _whole("GlobalMaxPooling1D"),
    "UpSampling2D": _upsampling("UpSampling2D"),
    "UpSampling1D": _upsampling("UpSampling1D"),
    "ZeroPadding2D": _border("ZeroPadding2D", 1),
    "ZeroPadding1D": _border("ZeroPadding1D", 1),
    "Cropping2D": _border("Cropping2D", -1),
    "Cropping1D": _border("Cropping1D", -1),
    "Slice": _slice,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Dropout": _same("Dropout(0.5"),
    "SpatialDropout1D": _same("SpatialDropout1D(0.5"),
    "SpatialDropout2D": _same("SpatialDropout2D(0.5"),
    "nested model": _nested,
}


def _takes(kind: str, rank: int) -> bool:
    """Whether a kind takes tensors of this rank, by its name."""
    if "1D" in kind:
        return rank == 2
    return rank == 3 if "2D" in kind else True


MERGES = ("Add", "Subtract", "Multiply", "Average", "Concatenate")
FREQUENT = ("Conv2D", "Conv1D", "Dense", "ReLU", "BatchNormalization", "Add", "Concatenate")


@dataclasses.dataclass
class _Program:
    """A program that is being written."""

    draw: Draw
    naming: str
    lines: list[str] = dataclasses.field(default_factory=list)
    shapes: dict[str, Shape] = dataclasses.field(default_factory=dict)  # by variable
    sources: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def add(self, expression: str, shape: Shape, sources: Sequence[str] = ()) -> None:
        """Append an assignment."""
        variable = f"x{len(self.lines)}"
        self.lines.append(f"{variable} = {expression}")
        self.shapes[variable], self.sources[variable] = shape, tuple(sources)

    def name(self, kind: str) -> str:
        """A layer's name."""
        return repr(self.naming.format(f"{kind.lower().replace(' ', '_')}{len(self.lines)}"))

    def append(self, kinds: Sequence[str]) -> None:
        """A layer or a merge behind one of the newest tensors, if it fits there."""
        newest = list(self.shapes)[::-1]
        source = self.draw(st.sampled_from([*newest[:1] * 4, *newest[:3]]))
        rank = len(self.shapes[source])
        kind = self.draw(st.sampled_from([kind for kind in kinds if _takes(kind, rank)]))
        if kind in MERGES:
            self._merge(kind, source)
            return
        made = VOCABULARY[kind](self.draw, self.shapes[source])
        if made is None or np.prod(made[1]) > LARGEST:
            return
        text = made[0].replace(NAMED, f"name={self.name(kind)}").replace("{x}", source)
        self.add(text, made[1], [source])

    def _merge(self, kind: str, first: str) -> None:
        """A merge of two or three tensors, which may be the same, but for a difference."""
        own = self.shapes[first]
        ends = -1 if kind == "Concatenate" else len(own)
        fitting = [
            name
            for name, shape in self.shapes.items()
            if len(shape) == len(own) and shape[:ends] == own[:ends]
        ]
        if kind == "Subtract":
            fitting.remove(first)
        if not fitting:
            return
        most = 1 if kind == "Subtract" else 2
        others = self.draw(st.lists(st.sampled_from(fitting[::-1]), min_size=1, max_size=most))
        sources = [first, *others]
        channels = sum(self.shapes[name][-1] for name in sources)
        shape = (*own[:-1], channels) if kind == "Concatenate" else own
        self.add(f"layers.{kind}(name={self.name(kind)})([{', '.join(sources)}])", shape, sources)

    def ends(self) -> list[str]:
        """The variables that nothing takes, newest first; none of them an input."""
        taken = {name for sources in self.sources.values() for name in sources}
        made = [name for name, sources in self.sources.items() if sources]
        return [name for name in made[::-1] if name not in taken]

    def has_weights(self, outputs: Sequence[str]) -> bool:
        """Whether a kernel is among what these are made of."""
        needed = self.needed(outputs)
        lines = [line for line in self.lines if line.split()[0] in needed]
        return any(word in line for line in lines for word in ("Conv", "Dense"))

    def needed(self, outputs: Sequence[str]) -> set[str]:
        """The variables that these are made of."""
        found, waiting = set(), list(outputs)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.sources[name]
        return found


@st.composite
def recipes(draw: Draw) -> tfbinreg.Recipe:
    """How to quantize: every width, per channel or not, folded or not."""
    fold = draw(st.sampled_from([False, False, True]))
    return tfbinreg.Recipe(
        weight_bits=draw(st.integers(2, 8)),
        activation_bits=draw(st.integers(2, 8)),
        first_last_bits=draw(st.sampled_from([8, None])),
        per_channel=draw(st.booleans()),
        learned_offset=draw(st.sampled_from([True, True, False])),
        fold_batch_norm=fold,
        bias_bits=draw(st.sampled_from([None, 8])) if fold else None,
    )


SHAPES = st.one_of(
    st.tuples(st.integers(3, 7), st.integers(3, 6), st.integers(1, 3)),
    st.tuples(st.integers(4, 9), st.integers(1, 4)),
    st.tuples(st.integers(2, 6)),
)


@st.composite
def nets(draw: Draw, kinds: Sequence[str] = (*VOCABULARY, *MERGES, *FREQUENT)) -> Net:
    """A net of up to `MOST_NODES` layers of these kinds, and a Dense if no other has weights."""
    own = draw(st.sampled_from(list(OWN)))
    program = _Program(draw, draw(st.sampled_from(NAMINGS[own])))
    shapes = draw(st.lists(SHAPES, min_size=1, max_size=2))
    for shape in shapes:
        program.add(f"own.Input({shape}, name={program.name('in')})", shape)
    inputs = list(program.shapes)
    for _ in range(draw(st.integers(4, MOST_NODES))):
        program.append(kinds)
    outputs = program.ends()[: draw(st.integers(1, 3))]
    if not program.has_weights(outputs):
        program.append(["Dense"])
        outputs = program.ends()[:1]
    again = draw(st.sampled_from([None, None, None, *program.shapes]))
    if again in program.shapes and again not in inputs:
        outputs.append(again)
    needed = program.needed(outputs)
    return Net(
        own=own,
        lines=tuple(line for line in program.lines if line.split()[0] in needed),
        inputs=tuple(name for name in inputs if name in needed),
        outputs=tuple(outputs),
        shapes=tuple(shape for name, shape in zip(inputs, shapes, strict=True) if name in needed),
        recipe=draw(recipes()),
        positive=draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
    )
