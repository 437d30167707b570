"""Layers with kernels written as matrix products: rows of inputs times rows of the kernel."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.network.graph import clone_layer
from tfbinreg.network.grouped_convolution import compute_by_groups

ROWS = 4096  # of inputs that are sampled, over all batches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """A kind of layer as a matrix product, (groups, rows, inputs) @ (groups, inputs, outputs).

    Attributes:
        to_rows: kernel and the layer's groups -> (groups, inputs, outputs).
        from_rows: the same and the kernel's shape -> kernel.
        outputs: the argument that sets how many outputs the layer has.
        probe: shape of the kernel and the layer's groups -> kernel with which its outputs are the
            rows of its inputs.
    """

    to_rows: Callable[[np.ndarray, int], np.ndarray]
    from_rows: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    outputs: str
    probe: Callable[[tuple[int, ...], int], np.ndarray]


def _identity(*sizes: int) -> np.ndarray:
    """An identity of shape (*sizes, product of the sizes)."""
    count = int(np.prod(sizes))
    return np.eye(count, dtype=np.float32).reshape(*sizes, count)


def _plain(kernel: np.ndarray, groups: int) -> np.ndarray:
    return np.moveaxis(kernel.reshape(-1, groups, kernel.shape[-1] // groups), 1, 0)


def _depthwise(kernel: np.ndarray, groups: int) -> np.ndarray:
    height, width, channels, multiplier = kernel.shape
    return np.moveaxis(kernel.reshape(height * width, channels, multiplier), 1, 0)


def _original(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.moveaxis(rows, 0, 1).reshape(shape)


# By class. A layer's own operation finds the rows, whatever its strides, padding and dilation are.
LAYOUTS = {
    "Conv2D": Layout(
        to_rows=_plain,
        from_rows=_original,
        outputs="filters",
        probe=lambda shape, groups: np.tile(_identity(*shape[:3]), groups),
    ),
    "DepthwiseConv2D": Layout(
        to_rows=_depthwise,
        from_rows=_original,
        outputs="depth_multiplier",
        probe=lambda shape, groups: np.repeat(_identity(*shape[:2])[:, :, None], shape[2], axis=2),
    ),
    "Conv2DTranspose": Layout(
        to_rows=lambda kernel, groups: _plain(np.swapaxes(kernel, 2, 3), groups),
        from_rows=lambda rows, shape: np.swapaxes(
            rows.reshape(*shape[:2], shape[3], shape[2]), 2, 3
        ),
        outputs="filters",
        probe=lambda shape, groups: np.swapaxes(_identity(*shape[:2], shape[3]), 2, 3),
    ),
    "Dense": Layout(
        to_rows=_plain,
        from_rows=_original,
        outputs="units",
        probe=lambda shape, groups: _identity(shape[0]),
    ),
}


class LayerRows:
    """Samples rows of one layer, always at the same places.

    Args:
        layer: the float layer inside a quantized one.
        shape: shape of its kernel.
        name: seeds the choice of places.
        per_batch: rows that are taken from each batch, or all if it has fewer.

    Attributes:
        groups: number of channel groups that are separate matrix products.
    """

    def __init__(self, layer: Any, shape: tuple[int, ...], name: str, per_batch: int) -> None:
        self._layout = LAYOUTS[type(layer).__name__]
        self._layer, self._shape = layer, shape
        self._layer_groups = getattr(layer, "groups", 1)
        self.groups, self._row_size, _ = self.to_rows(np.empty(shape, np.float32)).shape
        self._seed, self._per_batch = zlib.crc32(name.encode()), per_batch
        self._probe: Any = None

    def to_rows(self, kernel: np.ndarray) -> np.ndarray:
        """Kernel -> (groups, inputs, outputs)."""
        return self._layout.to_rows(kernel, self._layer_groups)

    def from_rows(self, rows: np.ndarray) -> np.ndarray:
        """(groups, inputs, outputs) -> kernel."""
        return self._layout.from_rows(rows, self._shape)

    def of_inputs(self, tensor: tf.Tensor, batch: int) -> np.ndarray:
        """Rows of the layer's input, (groups, rows, inputs)."""
        return self.of_outputs(self._probe_layer(tensor)(tensor), batch)

    def mean_of_inputs(self, tensor: tf.Tensor) -> np.ndarray:
        """The mean of all rows of the layer's input, float64, (groups, inputs)."""
        values = np.asarray(self._probe_layer(tensor)(tensor))
        mean = np.mean(values.reshape(-1, values.shape[-1]), axis=0, dtype=np.float64)
        return mean.reshape(self.groups, -1)

    def of_outputs(self, tensor: Any, batch: int) -> np.ndarray:
        """Rows of the layer's output, at the same places, (groups, rows, outputs)."""
        values = np.asarray(tensor, np.float32)
        values = values.reshape(-1, values.shape[-1])
        if self._per_batch < len(values):
            random = np.random.default_rng([self._seed, batch])
            places = random.choice(len(values), self._per_batch, replace=False)
            values = values[np.sort(places)]
        return np.moveaxis(values.reshape(len(values), self.groups, -1), 1, 0)

    def _probe_layer(self, tensor: tf.Tensor) -> Any:
        """The layer with a kernel that outputs its inputs."""
        if self._probe is None:
            kernel = self._layout.probe(self._shape, self._layer_groups)
            outputs = self._row_size * self._layer_groups
            changes = {self._layout.outputs: outputs, "use_bias": False, "dtype": "float32"}
            self._probe = clone_layer(self._layer, **changes)
            compute_by_groups(self._probe)
            self._probe.build(tensor.shape)
            self._probe.set_weights([kernel])
        return lambda values: self._probe(tf.cast(values, tf.float32))
