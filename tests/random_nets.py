"""Random small nets out of every kind of layer in the table, for hypothesis.

A `Net` is the text of a program, so that a counter-example can be read, pasted and run.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import keras as keras_3
import numpy as np
import tensorflow as tf
import tf_keras
from hypothesis import strategies as st
from random_layers import NAMED, VOCABULARY, Draw, Shape, last_axis, takes
from random_operations import OPERATIONS

import tfbinreg

OWN = {"tf_keras": tf_keras, "keras": keras_3}
MOST_NODES = 9
NAMINGS = {"tf_keras": ("{}", "{}", "{}.a-b"), "keras": ("{}", "{}", "_{}", "{} ü")}
CHANNEL_BITS = (0, 1, 2, 3, 4, 8)
LARGEST = 600  # numbers in a tensor


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
        mixed: whether the channels of its kernels have bits of their own.
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
    mixed: bool = False

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
                *(["# net.recipe_for(model) gives channels bits of their own"] * self.mixed),
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

    def recipe_for(self, model: Any) -> tfbinreg.Recipe:
        """The recipe, with a rule for the channels of each kernel of the model if they are
        mixed; none is pruned as a whole."""
        if not self.mixed:
            return self.recipe
        random = np.random.default_rng(self.seed)
        plan, rules = tfbinreg.plan(model, self.recipe), []
        for index, kernel in plan.kernels.items():
            bits = random.choice(CHANNEL_BITS, kernel.spec.channels)
            bits[0] = max(1, bits[0])
            name = re.escape(plan.graph.nodes[index].name)
            rules.append(tfbinreg.Rule(layer=name, weight_bits=bits))
        return dataclasses.replace(self.recipe, rules=tuple(rules))

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


MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
REPEAT = "repeated layer"
REPEATED = ("Conv2D", "DepthwiseConv2D", "Conv1D", "SeparableConv2D", "Dense", "BatchNormalization",
            "PReLU", "TimeDistributed", "nested model")  # fmt: skip
FREQUENT = ("Conv2D", "Conv1D", "Dense", "ReLU", "BatchNormalization", "Add", "Concatenate", REPEAT)


@dataclasses.dataclass
class _Program:
    """A program that is being written."""

    draw: Draw
    own: str
    naming: str
    lines: list[str] = dataclasses.field(default_factory=list)
    shapes: dict[str, Shape] = dataclasses.field(default_factory=dict)  # by variable
    sources: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    # Layers by the variables they first made: shapes of what they take and give.
    layers: dict[str, tuple[Shape, Shape]] = dataclasses.field(default_factory=dict)
    repeats: dict[str, str] = dataclasses.field(default_factory=dict)  # variable -> its layer's

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
        kind = self.draw(st.sampled_from([kind for kind in kinds if takes(kind, rank)]))
        if kind == REPEAT:
            self._repeat(source)
            return
        if kind in MERGES:
            self._merge(kind, source)
            return
        if kind in OPERATIONS:
            made = OPERATIONS[kind](self.draw, self.shapes[source])
            made = (made[0][self.own], made[1]) if made and self.own in made[0] else None
        else:
            made = VOCABULARY[kind](self.draw, self.shapes[source])
        if made is None or np.prod(made[1]) > LARGEST:
            return
        text = made[0].replace(NAMED, f"name={self.name(kind)}").replace("{x}", source)
        if kind in REPEATED:
            variable, made_by, ending = f"x{len(self.lines)}", *text.rsplit("(", 1)
            self.layers[variable] = self.shapes[source], made[1]
            text = f"({variable}_layer := {made_by})({ending}"
        self.add(text, made[1], [source])

    def _repeat(self, source: str) -> None:
        """A layer that is there already, once more."""
        own = self.shapes[source]
        fitting = [name for name, (taken, _) in self.layers.items() if taken == own]
        if fitting:
            first = self.draw(st.sampled_from(fitting))
            self.repeats[f"x{len(self.lines)}"] = first
            self.add(f"{first}_layer({source})", self.layers[first][1], [source])

    def _merge(self, kind: str, first: str) -> None:
        """A merge of two or three tensors, which may be the same, but for a difference."""
        own = self.shapes[first]
        joined = kind == "Concatenate"
        axis = len(own) - 1  # mostly the last
        if joined and self.draw(st.integers(0, 3)) == 0:
            axis = self.draw(st.integers(0, len(own) - 1))
        fitting = [
            name
            for name, shape in self.shapes.items()
            if len(shape) == len(own)
            and all(a == b or (joined and at == axis)
                    for at, (a, b) in enumerate(zip(shape, own, strict=True)))
        ]  # fmt: skip
        if kind == "Subtract":
            fitting.remove(first)
        if not fitting:
            return
        most = 1 if kind == "Subtract" else 2
        others = self.draw(st.lists(st.sampled_from(fitting[::-1]), min_size=1, max_size=most))
        sources = [first, *others]
        shape, written = own, ""
        if joined:
            size = sum(self.shapes[name][axis] for name in sources)
            shape = (*own[:axis], size, *own[axis + 1 :])
            last = axis == len(own) - 1
            written = f"{last_axis(self.draw, own) if last else f'axis={axis + 1}'}, "
        layer = f"layers.{kind}({written}name={self.name(kind)})"
        self.add(f"{layer}([{', '.join(sources)}])", shape, sources)

    def ends(self) -> list[str]:
        """The variables that nothing takes, newest first; none of them an input."""
        taken = {name for sources in self.sources.values() for name in sources}
        made = [name for name, sources in self.sources.items() if sources]
        return [name for name in made[::-1] if name not in taken]

    def has_weights(self, outputs: Sequence[str]) -> bool:
        """Whether a kernel is among what these are made of."""
        needed = self.needed(outputs)
        lines = [line for line in self.lines if line.split()[0] in needed]
        return any(word in line for line in lines for word in ("Conv", "Dense", "conv", "matmul"))

    def needed(self, outputs: Sequence[str]) -> set[str]:
        """The variables that these are made of."""
        found, waiting = set(), list(outputs)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [*self.sources[name], *filter(None, [self.repeats.get(name)])]
        return found


@st.composite
def recipes(draw: Draw) -> tfbinreg.Recipe:
    """How to quantize: every width, per channel or not, folded or not."""
    fold = draw(st.sampled_from([False, False, True]))
    return tfbinreg.Recipe(
        weight_bits=draw(st.integers(1, 8)),
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


ALL_KINDS = (*VOCABULARY, *OPERATIONS, *MERGES, *FREQUENT)


@st.composite
def nets(draw: Draw, kinds: Sequence[str] = ALL_KINDS) -> Net:
    """A net of up to `MOST_NODES` layers of these kinds, and a Dense if no other has weights."""
    own = draw(st.sampled_from(list(OWN)))
    program = _Program(draw, own, draw(st.sampled_from(NAMINGS[own])))
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
        mixed=draw(st.sampled_from([False, False, True])),
        seed=draw(st.integers(0, 9)),
    )
