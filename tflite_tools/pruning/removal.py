"""Which channels of a network can be left out without changing a bit of its outputs.

A channel can go where everything that reads it can do without it. A kernel can if its weights for
the channel are all zero, or if the channel is constant and adds the same to every position: then
its products belong to the bias. Other operators take or leave the channels that belong together
as a whole, and the model's inputs and outputs keep theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tflite_tools.pruning import constants, kernels, relations
from tflite_tools.pruning.kernels import Kernel
from tflite_tools.pruning.relations import Relation, channels
from tflite_tools.schema import file_layout
from tflite_tools.schema.contents import Graph, Op


@dataclasses.dataclass(frozen=True, eq=False)
class Removal:
    """What can be left out.

    Attributes:
        kept: tensor -> bool mask of the channels that stay, for tensors that lose some.
        values: tensor -> stored values of its constant channels (`constants.of_graph`).
    """

    kept: Mapping[int, np.ndarray]
    values: Mapping[int, np.ndarray]


def of_graph(graph: Graph) -> Removal:
    """The most channels that can be left out of a graph; every tensor keeps at least one."""
    values = constants.of_graph(graph)
    return Removal(_Search(graph, values).run(), values)


class _Search:
    """Channels as numbers from 0 on, in groups that stay or go together."""

    def __init__(self, graph: Graph, values: Mapping[int, np.ndarray]) -> None:
        self.graph, self.values = graph, values
        computed = [tensor for tensor in graph.tensors if tensor.data is None]
        ends = np.cumsum([0, *(channels(tensor) for tensor in computed)])
        self.places = {
            tensor.index: slice(start, stop)
            for tensor, start, stop in zip(computed, ends[:-1], ends[1:], strict=True)
        }
        self.needed: np.ndarray = np.zeros(ends[-1], bool)
        self.group: np.ndarray = np.arange(ends[-1])
        self.kernels: list[Kernel] = []
        self.links: list[tuple[np.ndarray, np.ndarray]] = []

    def run(self) -> dict[int, np.ndarray]:
        """Tensor -> mask of kept channels, where some go."""
        made = {index for op in self.graph.ops for index in op.outputs}
        for index in (*(self.places.keys() - made), *self.graph.inputs, *self.graph.outputs):
            self._need(index)
        for op in self.graph.ops:
            self._add(op)
        self._join()
        gone: np.ndarray = np.zeros_like(self.needed)
        while not np.array_equal(gone, found := self._without_empty(self._unneeded(gone), gone)):
            gone = found
        return {index: ~gone[place] for index, place in self.places.items() if np.any(gone[place])}

    def _add(self, op: Op) -> None:
        """What an operator reads and makes, and what it couples."""
        kernel = kernels.of_operator(self.graph, op) if op.name in file_layout.KERNEL_OPS else None
        if kernel is not None and kernel.mixes:
            self.kernels.append(kernel)
            return
        if kernel is not None:  # a group as a whole
            read = kernel.read()
            own = np.broadcast_to(np.arange(len(read))[:, None], read.shape)
            related = [Relation(kernel.source.index, np.stack([read, own], -1).reshape(-1, 2))]
        else:
            related = relations.of_operator(self.graph, op) or []
        if not related:
            for index in (*op.inputs, *op.outputs):
                self._need(index)
        for tensor, pairs in related:
            if tensor in self.places:
                made = self.places[op.outputs[0]].start
                self.links.append((self.places[tensor].start + pairs[:, 0], made + pairs[:, 1]))

    def _need(self, tensor: int) -> None:
        if tensor in self.places:
            self.needed[self.places[tensor]] = True

    def _join(self) -> None:
        """Give every group the smallest of its numbers."""
        before = None
        while before is None or not np.array_equal(before, self.group):
            before = self.group.copy()
            for one, other in self.links:
                smallest = np.minimum(self.group[one], self.group[other])
                np.minimum.at(self.group, one, smallest)
                np.minimum.at(self.group, other, smallest)

    def _unneeded(self, gone: np.ndarray) -> np.ndarray:
        """The channels that nothing needs once those in `gone` are left out."""
        needed = self.needed.copy()
        for kernel in self.kernels:
            rows = kernel.weights[~gone[self.places[kernel.output.index]]]
            needed[self.places[kernel.source.index]] |= rows.any(axis=(0, 1)) & ~self._free(kernel)
        wanted: np.ndarray = np.zeros_like(needed)
        np.logical_or.at(wanted, self.group, needed)
        return ~wanted[self.group]

    def _free(self, kernel: Kernel) -> np.ndarray:
        """The input channels whose products can go, most of them into the bias."""
        values = self.values[kernel.source.index]
        if kernel.has_bias and kernel.fits():
            return kernel.foldable(values)
        return values == kernels.grid(kernel.source)[1]

    def _without_empty(self, found: np.ndarray, gone: np.ndarray) -> np.ndarray:
        """The channels in `found`, less a group for each tensor that would have none left."""
        empty = [place for place in self.places.values() if found[place].all()]
        while empty:
            # One that has not gone before, for others may have gone because of those.
            place = empty[0]
            self.needed[place.start + int(np.argmin(gone[place]))] = True
            found = self._unneeded(gone)
            empty = [place for place in self.places.values() if found[place].all()]
        return found
