"""Decide, before anything is touched, what happens to each layer and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfbinreg.graph import Graph, Node
from tfbinreg.kinds import KINDS, Role
from tfbinreg.recipe import LayerSettings, Recipe


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a layer cannot be quantized, and what to do about it."""

    layer: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.what}; {self.remedy}"


def raise_problems(problems: Iterable[Problem], doing: str) -> None:
    """Raise one ValueError that lists all `problems`; do nothing if there are none."""
    lines = [f"  - {problem}" for problem in problems]
    if lines:
        raise ValueError(f"Cannot {doing}:\n" + "\n".join(lines))


@dataclasses.dataclass(frozen=True)
class KernelPlan:
    """How a layer's kernel is quantized. `node` is the layer's index in the graph."""

    node: int
    bits: int
    axis: int | None
    parameters: int


@dataclasses.dataclass(frozen=True)
class GridPlan:
    """A learned activation grid behind `node`, the last layer of a fused chain.

    Attributes:
        node: index of the layer whose output is quantized.
        chain: indices of the layers that end in this grid, from the one that starts it.
        bits: 2 to 8.
        signed: whether negative codes exist.
        upper_limit: 6.0 if the chain ends in a ReLU6.
        from_range: whether its step starts from the range of the data, as inputs and outputs do.
        fixed: whether it is a model input's grid, which is not trained.
        reason: why these bits.
    """

    node: int
    chain: tuple[int, ...]
    bits: int
    signed: bool
    upper_limit: float | None
    from_range: bool
    fixed: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `quantize_apply` would do to a model. `print(plan)` shows it as a table.

    Attributes:
        graph: layer graph of the normalized model.
        kernels: quantized kernels by node index.
        grids: activation grids by node index.
        same_grid: for each node that keeps or re-enters a grid, the node that owns it.
        problems: everything that stands in the way; empty if the model can be quantized.
    """

    graph: Graph
    kernels: Mapping[int, KernelPlan]
    grids: Mapping[int, GridPlan]
    same_grid: Mapping[int, int]
    problems: tuple[Problem, ...] = ()

    @property
    def absorbed(self) -> frozenset[int]:
        """ReLU nodes that become part of the unsigned grid behind them."""
        return frozenset(
            index
            for grid in self.grids.values()
            for index in grid.chain[1:]
            if KINDS[self.graph.nodes[index].kind].role is Role.RELU
        )

    def rows(self) -> list[dict[str, Any]]:
        """One dict per layer: layer, kind, weight_bits, activation_bits, grid, parameters, bytes,
        note."""
        end_of = {index: grid for grid in self.grids.values() for index in grid.chain}
        return [self._row(node, end_of.get(node.index)) for node in self.graph.nodes]

    def _row(self, node: Node, grid: GridPlan | None) -> dict[str, Any]:
        kernel = self.kernels.get(node.index)
        owns = grid is not None and grid.node == node.index
        return {
            "layer": node.name,
            "kind": node.kind,
            "weight_bits": kernel.bits if kernel else None,
            "activation_bits": grid.bits if grid and owns else None,
            "grid": ("signed" if grid.signed else "unsigned") if grid and owns else None,
            "parameters": kernel.parameters if kernel else 0,
            "bytes": (kernel.parameters * kernel.bits + 7) // 8 if kernel else 0,
            "note": self._note(node, grid, owns),
        }

    def _note(self, node: Node, grid: GridPlan | None, owns: bool) -> str:
        if owns and grid is not None:
            return grid.reason
        if grid is not None:
            return f"fused into {self.graph.nodes[grid.node].name}"
        if node.index in self.same_grid:
            return f"grid of {self.graph.nodes[self.same_grid[node.index]].name}"
        return "fixed grid of 1/256" if KINDS[node.kind].role is Role.SOFTMAX else "not quantized"

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
        return "\n".join(lines + [f"problem: {problem}" for problem in self.problems])


def decide(
    graph: Graph,
    recipe: Recipe,
    annotated: Mapping[str, LayerSettings | None] | None = None,
) -> Plan:
    """Plan the quantization of a normalized model.

    Args:
        graph: layer graph of a model that `normalize` returned.
        recipe: bits per layer.
        annotated: for a model annotated layer by layer, the annotated layers and their settings,
            which win over the recipe's; None quantizes every layer.
    """
    return _Decision(graph, recipe, annotated).plan()


class _Decision:
    """The steps of `decide`, over one graph."""

    def __init__(
        self,
        graph: Graph,
        recipe: Recipe,
        annotated: Mapping[str, LayerSettings | None] | None,
    ) -> None:
        self.graph, self.recipe, self.annotated = graph, recipe, annotated
        self.roles = [KINDS[node.kind].role for node in graph.nodes]
        self.chains = self._fused_chains()
        self.owner = self._grid_owners()
        self.first, self.last = self._first_and_last_kernels()

    def plan(self) -> Plan:
        kernels = {
            node.index: self._kernel(node)
            for node in self.graph.nodes
            if self.roles[node.index] is Role.KERNEL and self._selected(node)
        }
        grids: dict[int, GridPlan] = {}
        for tail, chain in self.chains.items():
            if self._wants_grid(tail, chain, kernels):
                grids[tail] = self._grid(tail, chain, grids)
        same = {
            index: owner
            for index, owner in self.owner.items()
            if self.roles[index] in (Role.SAME, Role.RELU) and index not in grids and owner in grids
        }
        fused = {index for chain in self.chains.values() for index in chain}
        same = {index: owner for index, owner in same.items() if index not in fused}
        return Plan(self.graph, kernels, grids, same, tuple(self._problems()))

    def _selected(self, node: Node) -> bool:
        return self.annotated is None or node.name in self.annotated

    def _fused_chains(self) -> dict[int, tuple[int, ...]]:
        """Chains kernel [-> BatchNormalization] [-> ReLU] and so on, by their last node."""
        chains = {}
        for node in self.graph.nodes:
            if self.roles[node.index] not in (Role.INPUT, Role.KERNEL, Role.MERGE):
                continue
            chain = [node.index]
            wanted = [Role.RELU] if self.roles[node.index] is not Role.INPUT else []
            if self.roles[node.index] is Role.KERNEL:
                wanted.insert(0, Role.NORM)
            for role in wanted:
                follower = self.graph.sole_consumer(chain[-1])
                if follower is not None and self.roles[follower.index] is role:
                    chain.append(follower.index)
            chains[chain[-1]] = tuple(chain)
        return chains

    def _grid_owners(self) -> dict[int, int]:
        """For each node the chain end whose grid its output lies on."""
        owner: dict[int, int] = {}
        for node in self.graph.nodes:
            if node.index in self.chains:
                owner[node.index] = node.index
            elif node.inputs and self.roles[node.index] is not Role.SOFTMAX:
                owner[node.index] = owner.get(node.inputs[0], node.inputs[0])
        return owner

    def _first_and_last_kernels(self) -> tuple[set[int], set[int]]:
        kernels = [i for i, role in enumerate(self.roles) if role is Role.KERNEL]
        first = {i for i in kernels if self.roles[self._source(i)] is Role.INPUT}
        feeds: set[int] = set()  # nodes from which a kernel is reached
        for node in reversed(self.graph.nodes):
            if self.roles[node.index] is Role.KERNEL or node.index in feeds:
                feeds.update(node.inputs)
        return first, {i for i in kernels if i not in feeds}

    def _source(self, kernel: int) -> int:
        (producer,) = self.graph.nodes[kernel].inputs
        return self.owner.get(producer, producer)

    def _settings(self, chain: Iterable[int]) -> LayerSettings:
        """Rules for a fused chain, then its annotations; of several the last wins."""
        nodes = [self.graph.nodes[index] for index in chain]
        merged = self.recipe.settings(*[(node.name, node.kind) for node in nodes])
        for node in nodes:
            settings = (self.annotated or {}).get(node.name)
            if settings is not None:
                changes = {k: v for k, v in dataclasses.asdict(settings).items() if v is not None}
                merged = dataclasses.replace(merged, **changes)
        return merged

    def _kernel(self, node: Node) -> KernelPlan:
        settings = self._settings([node.index])
        bits = settings.weight_bits
        if bits is None:
            edge = node.index in self.first | self.last
            keep = self.recipe.first_last_bits if edge else None
            bits = keep or self.recipe.weight_bits
        kind = KINDS[node.kind]
        kernel = getattr(node.layer, kind.kernel or "")
        axis = kind.channel_axis if settings.per_channel else None
        return KernelPlan(node.index, bits, axis, int(np.prod(kernel.shape)))

    def _wants_grid(self, tail: int, chain: tuple[int, ...], kernels: Mapping[int, Any]) -> bool:
        if any(self._selected(self.graph.nodes[i]) for i in chain):
            return True
        return any(self._source(kernel) == tail for kernel in kernels)

    def _grid(self, tail: int, chain: tuple[int, ...], grids: Mapping[int, GridPlan]) -> GridPlan:
        head, recipe = self.graph.nodes[chain[0]], self.recipe
        is_input = self.roles[head.index] is Role.INPUT
        relu = self.graph.nodes[tail].layer if self.roles[tail] is Role.RELU else None
        if is_input:
            signed = not recipe.unsigned_input
        elif head.kind == "GlobalAveragePooling2D" and relu is None:
            source = grids.get(self.owner[head.inputs[0]])
            signed = source is None or source.signed
        else:
            signed = relu is None
        bits, reason = self._grid_bits(tail, chain, signed)
        limit = None if relu is None else relu.max_value
        from_range = is_input or self._is_output(tail)
        return GridPlan(tail, chain, bits, signed, limit, from_range, is_input, reason)

    def _grid_bits(self, tail: int, chain: tuple[int, ...], signed: bool) -> tuple[int, str]:
        recipe = self.recipe
        asked = self._settings(chain).activation_bits
        feeds_last = any(self._source(kernel) == tail for kernel in self.last)
        if asked is not None:
            return asked, "set by a rule"
        if self.roles[chain[0]] is Role.INPUT:
            return recipe.input_bits, "model input"
        if self._is_output(tail):
            return recipe.output_bits, "model output"
        if feeds_last and recipe.first_last_bits is not None:
            return max(recipe.first_last_bits, recipe.activation_bits), "input of the last kernel"
        if signed:
            return recipe.signed_activation_bits, "signed activation"
        return recipe.activation_bits, "unsigned activation"

    def _is_output(self, tail: int) -> bool:
        """Whether the model's outputs, before a softmax, lie on the grid behind node `tail`."""
        outputs = (
            self.graph.nodes[index].inputs[0] if self.roles[index] is Role.SOFTMAX else index
            for index in self.graph.outputs
        )
        return any(self.owner.get(index, index) == tail for index in outputs)

    def _problems(self) -> Iterable[Problem]:
        if Role.KERNEL not in self.roles:
            remedy = "add a Conv2D, DepthwiseConv2D or Dense"
            yield Problem(self.graph.name, "no layer has a kernel to quantize", remedy)
        fused = {index for chain in self.chains.values() for index in chain}
        for node in self.graph.nodes:
            role = self.roles[node.index]
            if role is Role.NORM and node.index not in fused:
                yield Problem(
                    node.name,
                    "BatchNormalization that cannot be folded",
                    "let it follow a Conv2D, DepthwiseConv2D or Dense that nothing else reads",
                )
            if role is Role.SOFTMAX and node.index not in self.graph.outputs:
                yield Problem(node.name, "Softmax inside the model", "use it as the output only")
        pairs = [(node.name, node.kind) for node in self.graph.nodes]
        for rule in self.recipe.unmatched(pairs):
            yield Problem(str(rule), "matches no layer", "correct the name or remove the rule")
