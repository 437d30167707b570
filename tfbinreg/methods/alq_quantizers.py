"""ALQ's tfmot `Quantizer` for kernels; for the source see `alq`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import Grid, WeightBits, check_weight_bits, widest
from tfbinreg.methods import alq_functions as functions
from tfbinreg.methods.alq_functions import LARGEST_CODE
from tfbinreg.methods.alq_sketch import sketch
from tfbinreg.methods.contract import GridTensors, KernelStep
from tfbinreg.methods.lsq_functions import channel_axis
from tfbinreg.methods.uniform import Parameters, UniformWeightQuantizer, Variables

MOST_BITS = 7
# What a step of the optimizer moves.
BASES, COORDINATES, STRAIGHT_THROUGH = range(3)


@_compat.register
class ALQWeightQuantizer(UniformWeightQuantizer):
    """ALQ for a kernel: each channel has `bits` coordinates, or fewer, and its own levels.

    After each step of the optimizer the kernel becomes sums of the coordinates, by `phase`:

    - `BASES`: each weight takes the level nearest to where the optimizer has moved it, and the
      coordinates are solved for (`alq_functions.step_bases`).
    - `COORDINATES`: the optimizer moves the coordinates, and no weight changes its signs.
    - `STRAIGHT_THROUGH`: as `BASES`, but the kernel keeps what the optimizer has made of it, and
      only the coordinates are set.

    Training computes with the coordinates as a file holds them (`alq_functions.snapped`).

    Args:
        bits: 1 to 7, or one number from 0 to 7 for each channel; 0 prunes the channel.
        axis: channel axis of the kernel.
        prunes: whether it tracks the importance of each coordinate.
        start: the kernel whose sketch the coordinates start from when they are built; not part of
            the config.
    """

    acts_after_steps = True
    axis: int

    def __init__(
        self, bits: WeightBits, axis: int, prunes: bool = False, start: Any = None
    ) -> None:
        given = check_weight_bits(bits)
        self.channel_bits = given if isinstance(given, tuple) else None
        self.bits = widest(given)
        if not 1 <= self.bits <= MOST_BITS:
            raise ValueError(f"Weight bits of alq are 1 to {MOST_BITS}, got {given}.")
        self.signed, self.axis, self.prunes = True, axis, prunes
        self.qmin, self.qmax = -LARGEST_CODE, LARGEST_CODE
        self._start = start

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        groups = int(tensor_shape[self.axis])
        shape, start = (groups, self.bits), self._initial_value

        def add(what: str, own: tuple[int, ...], **options: Any) -> tf.Variable:
            return self.add_variable(layer, name, own, what=what, **options)

        resting: dict[str, Any] = {"trainable": False, "initializer": "zeros"}
        variables = {
            "coordinates": add("coordinates", shape, initializer=start),
            # Those that the kernel is made of, while the optimizer moves the others.
            "last": add("last_coordinates", shape, initializer=start, trainable=False),
            "phase": add("phase", (), dtype=tf.int32, **resting),
        }
        if self.prunes:
            variables["pull"] = add("pull", shape, **resting)
            variables["stiffness"] = add("stiffness", (groups,), **resting)
        return variables

    def scale(self, parameters: Parameters) -> tf.Tensor:
        return functions.snapped(tf.convert_to_tensor(parameters["coordinates"]))[0]

    def grid_now(self, variables: Variables) -> GridTensors:
        scale, multiples = functions.snapped(tf.convert_to_tensor(variables["coordinates"]))
        levels = functions.levels_of(multiples)

        def codes(ratio: tf.Tensor) -> tf.Tensor:
            places = functions.nearest(self._rows(ratio), levels)
            found = tf.gather(levels.values, places, batch_dims=1)
            return self._kernel(found, ratio.shape)

        bits = tf.math.count_nonzero(multiples, axis=1)
        return GridTensors(scale, self.qmin, self.qmax, self.axis, codes, bits)

    def settle(self, variables: Variables, name: str) -> Grid:
        scale = self.settled_scale(variables, name)
        _, multiples = functions.snapped(tf.convert_to_tensor(variables["coordinates"]))
        levels = functions.levels_of(multiples).values.numpy().astype(int)
        grid = Grid.codebooks([sorted(set(row.tolist())) for row in levels], scale, self.axis)
        # Ends that do not depend on whether all channels are pruned.
        return dataclasses.replace(grid, qmin=self.qmin, qmax=self.qmax)

    def initialize(self, variables: Variables, kernel: np.ndarray, start: str = "mse") -> None:
        """Set the coordinates by a sketch of the kernel; `start` has no effect.

        Raises:
            ValueError: if every weight is zero, or one is not finite.
        """
        is_empty = not np.any(kernel) and any(self.channel_bits or (1,))
        if is_empty or not np.all(np.isfinite(kernel)):
            raise ValueError(
                "No coordinates can be derived from weights that are all zero or not finite."
            )
        self._set(variables, self._sketch(kernel, variables["coordinates"].shape[1]))

    def start_from(self, variables: Variables, step: np.ndarray) -> None:
        ratio = tf.cast(step, tf.float32) / self.scale(variables)
        self._set(variables, variables["coordinates"] * ratio[:, None])

    def begin(self, variables: Variables, phase: int) -> None:
        """Begin a phase, with the current coordinates, regardless of what set them."""
        variables["last"].assign(variables["coordinates"])
        variables["phase"].assign(phase)

    def prune(self, variables: Variables, mask: np.ndarray) -> None:
        """Prune coordinates; at the next step each weight takes the nearest remaining level."""
        self._set(variables, np.where(mask, 0.0, variables["coordinates"].numpy()))

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        inputs = tf.convert_to_tensor(inputs)
        rows = self._rows(tf.cast(inputs, tf.float32))
        quantized = functions.alq_quantize(rows, tf.convert_to_tensor(weights["coordinates"]))
        return tf.cast(self._kernel(quantized, inputs.shape), inputs.dtype)

    def after_step(self, step: KernelStep) -> tf.Tensor:
        """The kernel of sums, or what the optimizer has made of it; sets the coordinates.

        Raises:
            ValueError: for an optimizer that keeps no mean squares of gradients.
        """
        if step.curvature is None:
            raise ValueError(f"{step.name!r}: ALQ needs the curvature that Adam keeps.")
        variables = step.variables
        last = tf.convert_to_tensor(variables["last"])
        before, after = (self._rows(own * step.factor) for own in (step.before, step.kernel))
        # Of what the kernel is multiplied by, the gradient has the inverse.
        curvature = tf.math.divide_no_nan(step.curvature(), tf.square(step.factor))
        curvature = self._rows(curvature)
        if self.prunes:
            self._take_note(before - after, curvature, functions.signs_of(before, last), variables)
        moved = tf.convert_to_tensor(variables["coordinates"])
        coordinates, rows = tf.switch_case(
            tf.convert_to_tensor(variables["phase"]),
            [
                lambda: functions.step_bases(after, curvature, last),
                lambda: functions.step_coordinates(before, moved, last),
                lambda: (functions.step_bases(after, curvature, last)[0], after),
            ],
        )
        self._set(variables, coordinates)
        kernel = tf.math.divide_no_nan(self._kernel(rows, step.kernel.shape), step.factor)
        # A factor of 0 hides the kernel: any number will do.
        return tf.where(tf.equal(step.factor, 0.0), step.kernel, kernel)

    def get_config(self) -> dict[str, Any]:
        bits = self.channel_bits or self.bits
        return {"bits": bits, "axis": self.axis, "prunes": self.prunes}

    def _take_note(
        self, moved: tf.Tensor, curvature: tf.Tensor, signs: tf.Tensor, variables: Any
    ) -> None:
        """Set what `alq_sketch.importance` takes, from w - (w - g / H) and H.

        That of a coordinate is the root of the weights' summed squares, as if their gradients were
        independent.
        """
        count = variables["pull"].shape[1]
        pull = functions.by_signs(curvature * moved, signs, count)
        variables["pull"].assign(tf.matmul(pull, functions.sign_table(count)))
        variables["stiffness"].assign(tf.norm(curvature, axis=1))

    def _set(self, variables: Any, coordinates: Any) -> None:
        for name in ("coordinates", "last"):
            variables[name].assign(coordinates)

    def _initial_value(self, shape: Any, dtype: Any = None) -> tf.Tensor:
        if self._start is not None and np.any(start := np.asarray(self._start)):
            return tf.constant(self._sketch(start, shape[1]))
        halves = 2.0 ** -np.arange(shape[1], dtype=np.float32)
        counts = np.broadcast_to(self.channel_bits or self.bits, shape[0])
        return tf.constant(np.where(np.arange(shape[1]) < counts[:, None], halves, 0.0))

    def _sketch(self, kernel: np.ndarray, count: int) -> np.ndarray:
        """The sketch, float32, with zeros up to `count` coordinates."""
        rows = self._rows(tf.constant(kernel)).numpy()
        found = sketch(rows, self.channel_bits or self.bits).astype(np.float32)
        return np.pad(found, ((0, 0), (0, count - found.shape[1])))

    def _rows(self, kernel: tf.Tensor) -> tf.Tensor:
        """The weights, a row for each channel."""
        turned = tf.transpose(kernel, self._channels_first(len(kernel.shape)))
        return tf.reshape(turned, (kernel.shape[self.axis], -1))

    def _kernel(self, rows: tf.Tensor, shape: Any) -> tf.Tensor:
        """The inverse of `_rows`."""
        order = self._channels_first(len(shape))
        turned = tf.reshape(rows, [shape[place] for place in order])
        return tf.transpose(turned, np.argsort(order))

    def _channels_first(self, rank: int) -> list[int]:
        own = channel_axis(self.axis, rank)
        return [own, *(place for place in range(rank) if place != own)]
