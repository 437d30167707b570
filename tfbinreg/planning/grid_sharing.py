"""Which tensors share a grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tfbinreg.network.fusing import Chains, fused_chains, is_input
from tfbinreg.network.graph import Graph, Node
from tfbinreg.network.layer_kinds import KINDS, Kind, Role


@dataclasses.dataclass(frozen=True)
class Sharing:
    """The operations of a model, each of which ends on a grid, and the grids that are one.

    A grid is identified by its leader: the last node of the first operation that ends on it.

    Attributes:
        graph: of a normalized model.
        chains: the operations.
        leaders: node -> the leader of the grid that its output is on.
        groups: leader -> the last nodes of the operations that end on its grid, in order.
    """

    graph: Graph
    chains: Chains
    leaders: Mapping[int, int]
    groups: Mapping[int, tuple[int, ...]]

    def node(self, index: int) -> Node:
        """A layer of the graph."""
        return self.graph.nodes[index]

    def kind(self, index: int) -> Kind:
        """The kind of a layer."""
        return KINDS[self.graph.nodes[index].kind]

    def role(self, index: int) -> Role:
        """What a layer does to grids."""
        return self.kind(index).role

    def sources(self, index: int) -> list[int]:
        """The leaders of the grids that the inputs of a layer are on."""
        return [self.leaders[producer] for producer in self.graph.nodes[index].inputs]

    def is_input(self, tail: int) -> bool:
        """Whether an operation is a model input, or constants applied to one."""
        return is_input(self.graph, self.chains[tail])


def share_grids(graph: Graph) -> Sharing:
    """See `Sharing`: joined tensors share a grid, and layers that only move numbers keep it."""
    chains = fused_chains(graph)
    owners: dict[int, int] = {}  # node -> the operation on whose grid its output lies
    joined: dict[int, int] = {}  # operation -> an earlier one whose grid it shares

    def leader(tail: int) -> int:
        while tail in joined:
            tail = joined[tail]
        return tail

    for node in graph.nodes:
        sources = [owners[index] for index in node.inputs]
        owners[node.index] = node.index if node.index in chains or not sources else sources[0]
        if KINDS[node.kind].role is Role.JOIN:
            for source in sources[1:]:
                first, second = sorted((leader(sources[0]), leader(source)))
                if first != second:
                    joined[second] = first

    groups: dict[int, list[int]] = {}
    for tail in sorted(chains):
        groups.setdefault(leader(tail), []).append(tail)
    return Sharing(
        graph,
        chains,
        {index: leader(owner) for index, owner in owners.items()},
        {first: tuple(tails) for first, tails in groups.items()},
    )
