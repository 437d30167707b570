"""What happens to each layer and why: the result of `decide`, which prints as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfbinreg.core.grid import WeightBits, bits_text
from tfbinreg.core.problems import Problem, counts, counts_text
from tfbinreg.core.recipe import LSQ
from tfbinreg.methods.contract import GridSpec, KernelSpec
from tfbinreg.network.graph import Graph, Node
from tfbinreg.network.layer_kinds import KINDS, Role, relu_limit


@dataclasses.dataclass(frozen=True)
class KernelPlan:
    """How a layer's kernel is quantized.

    Attributes:
        node: the layer's index in the graph.
        spec: the requirements on its quantizer.
        parameters: size of the kernel.
        norms: indices of the normalizations that are folded into it while training; None if it
            trains without them.
        bias_bits: bits of its bias; None for 32.
        bin_weight: factor of its part in the bin regularization; None for 1.
        penalty_weights: the same for any penalty, by name.
        method: name of the method that quantizes it.
    """

    node: int
    spec: KernelSpec
    parameters: int
    norms: tuple[int, ...] | None = None
    bias_bits: int | None = None
    bin_weight: float | None = None
    penalty_weights: Mapping[str, float] | None = None
    method: str = LSQ

    @property
    def bits(self) -> WeightBits:
        """Its bits, or those of each channel."""
        return self.spec.channel_bits or self.spec.bits

    @property
    def axis(self) -> int | None:
        """Channel axis of its steps; None for one step."""
        return self.spec.axis

    @property
    def is_pruned(self) -> bool:
        """Whether all of its channels are pruned."""
        return self.spec.channel_bits is not None and not any(self.spec.channel_bits)

    @property
    def packed_bytes(self) -> int:
        """The bytes that its codes take."""
        own = self.spec.channel_bits or (self.spec.bits,)
        return -(-self.parameters * sum(own) // (8 * len(own)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridPlan:
    """An activation grid, of one tensor or of several that are concatenated.

    Attributes:
        nodes: indices of the layers whose outputs are quantized, each the last of a fused chain.
        bits: 2 to 8.
        signed: whether negative codes exist.
        offset: whether the codes are shifted by a learned offset (LSQ+).
        upper_limit: the limit of the ReLU that the grid absorbs, None without one.
        from_range: whether its step starts from the range of the data, as inputs and outputs do.
        fixed: whether it is the grid of a model input, which is not trained.
        prescribed: whether the runtime prescribes it, as for a sigmoid.
        method: name of the method that quantizes to it.
        unnormalized: as in `GridSpec`.
        reason: why it has these bits.
    """

    nodes: tuple[int, ...]
    bits: int
    signed: bool
    offset: bool = False
    upper_limit: float | None = None
    from_range: bool = False
    fixed: bool = False
    prescribed: bool = False
    method: str = LSQ
    unnormalized: str | None = None
    reason: str

    @property
    def spec(self) -> GridSpec:
        """The requirements on its quantizer."""
        return GridSpec(
            bits=self.bits,
            signed=self.signed,
            offset=self.offset,
            upper_limit=self.upper_limit,
            from_range=self.from_range,
            fixed=self.fixed,
            unnormalized=self.unnormalized,
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `quantize_apply` would do to a model. `print(plan)` shows it as a table.

    Attributes:
        graph: layer graph of the normalized model.
        kernels: quantized kernels by node index.
        chains: the layers that are fused into one operation, from the one that starts it, by the
            index of the last one.
        grids: the activation grids by the node indices of the tensors on them.
        skipped: the layers that a rule leaves float.
        same_grid: for each node that keeps or re-enters a grid, the node that owns it.
        problems: everything that prevents quantization; empty if the model can be quantized.
        coarse: what loses most of its levels next to far larger numbers; requires calibration data.
    """

    graph: Graph
    kernels: Mapping[int, KernelPlan]
    chains: Mapping[int, tuple[int, ...]]
    grids: Mapping[int, GridPlan]
    same_grid: Mapping[int, int]
    skipped: frozenset[int] = frozenset()
    problems: tuple[Problem, ...] = ()
    coarse: tuple[Problem, ...] = ()

    @property
    def absorbed(self) -> frozenset[int]:
        """ReLU nodes that become part of the unsigned grid after them."""
        return frozenset(
            tail
            for tail, grid in self.grids.items()
            if KINDS[self.graph.nodes[tail].kind].role is Role.RELU
            and not grid.signed
            and grid.upper_limit == relu_limit(self.graph.nodes[tail].layer)
        )

    def rows(self) -> list[dict[str, Any]]:
        """One dict per layer call: layer, kind, weight_bits (a text where channels differ: "0-4, 12
        pruned"), activation_bits, grid, parameters, bytes (both 0 if the layer was called before),
        note.
        """
        tail_of = {index: tail for tail, chain in self.chains.items() for index in chain}
        return [self._row(node, tail_of.get(node.index)) for node in self.graph.nodes]

    def _row(self, node: Node, tail: int | None) -> dict[str, Any]:
        kernel = self.kernels.get(node.index)
        grid = self.grids.get(node.index)
        first = self.graph.first_call(node.index) == node.index
        return {
            "layer": node.name,
            "kind": node.kind,
            "weight_bits": _shown(kernel.bits) if kernel else None,
            "activation_bits": grid.bits if grid else None,
            "grid": _sort(grid) if grid else None,
            "parameters": kernel.parameters if kernel and first else 0,
            "bytes": kernel.packed_bytes if kernel and first else 0,
            "note": self._note(node, grid, tail),
        }

    def _note(self, node: Node, grid: GridPlan | None, tail: int | None) -> str:
        if grid is not None:
            shared = "" if grid.nodes[0] == node.index else ", grid of " + self._name(grid.nodes[0])
            return grid.reason + shared
        if node.index in self.skipped:
            return "skipped by a rule"
        if tail is not None and tail != node.index and tail in self.grids:
            return f"fused into {self._name(tail)}"
        if node.index in self.same_grid:
            return f"grid of {self._name(self.same_grid[node.index])}"
        return "fixed output grid" if KINDS[node.kind].role is Role.FIXED else "not quantized"

    def _name(self, index: int) -> str:
        return self.graph.nodes[index].name

    def __str__(self) -> str:
        header = ("layer", "kind", "W", "A", "grid", "parameters", "bytes", "note")
        table = [header] + [
            tuple("" if value is None else str(value) for value in row.values())
            for row in self.rows()
        ]
        widths = [max(len(line[column]) for line in table) for column in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in table
        ]
        packed = sum(row["bytes"] for row in self.rows())
        parameters = sum(row["parameters"] for row in self.rows())
        lines.append(f"{parameters} weights in {packed} packed bytes")
        lines += [f"problem: {problem}" for problem in self.problems]
        found = counts(self.problems)
        if sum(found.values()) > 1:
            lines.append(f"refused: {counts_text(found)}")
        return "\n".join(lines + [f"warning: {problem}" for problem in self.coarse])


def _shown(bits: WeightBits) -> int | str:
    return bits if isinstance(bits, int) else bits_text(bits)


def _sort(grid: GridPlan) -> str:
    if grid.offset:
        return "offset"
    return "signed" if grid.signed else "unsigned"
