"""Which layers become one operation: a kernel or another start, and what is fused into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from tfbinreg.network.graph import Graph
from tfbinreg.network.layer_kinds import KINDS, Kind, Role

_STARTS = (Role.INPUT, Role.KERNEL, Role.NORM, Role.MERGE, Role.FIXED)

# Layers that become one operation, as indices of nodes in the order they act, by the last of them.
Chains: TypeAlias = "Mapping[int, tuple[int, ...]]"


def can_fuse(start: Kind, role: Role) -> bool:
    """Whether an operation that starts with this kind can contain a layer of a role behind it.

    That nothing else uses what lies between them is for the caller to see.
    """
    if role is Role.NORM:
        return start.has_kernel
    return role is Role.RELU and start.fuses_relu


def fused_chains(graph: Graph) -> Chains:
    """The operations of a plain model: kernel [-> BatchNormalization ...] [-> ReLU] and so on.

    What keeps or joins grids is in none of them, nor is a ReLU that is not fused.
    """
    chains: dict[int, tuple[int, ...]] = {}
    fused: set[int] = set()
    for node in graph.nodes:
        if KINDS[node.kind].role in _STARTS and node.index not in fused:
            chain = _chain_from(graph, node.index)
            chains[chain[-1]] = chain
            fused.update(chain)
    return chains


def is_input(graph: Graph, chain: Sequence[int]) -> bool:
    """Whether a chain is a model input, or constants applied to one."""
    start = graph.nodes[chain[0]]
    if KINDS[start.kind].role is Role.INPUT:
        return True
    acting = [graph.nodes[i] for i in chain if not KINDS[graph.nodes[i].kind].augments]
    if any(node.kind != "ChannelAffine" for node in acting):
        return False
    (source,) = start.inputs
    while KINDS[graph.nodes[source].kind].role is Role.SAME:
        (source,) = graph.nodes[source].inputs
    return KINDS[graph.nodes[source].kind].role is Role.INPUT


def _chain_from(graph: Graph, index: int) -> tuple[int, ...]:
    chain, start = [index], KINDS[graph.nodes[index].kind]
    while (norm := _fused_behind(graph, start, chain[-1], Role.NORM)) is not None:
        chain.append(norm)
    while (varied := _augmentation_behind(graph, chain[-1])) is not None and is_input(graph, chain):
        chain.append(varied)
    relu = _fused_behind(graph, start, chain[-1], Role.RELU)
    return tuple(chain if relu is None else [*chain, relu])


def _fused_behind(graph: Graph, start: Kind, index: int, role: Role) -> int | None:
    """The only user of a node, if it has this role and can be fused."""
    follower = graph.sole_consumer(index)
    if follower is None or KINDS[follower.kind].role is not role or not can_fuse(start, role):
        return None
    return follower.index


def _augmentation_behind(graph: Graph, index: int) -> int | None:
    """The only user of a node, if it is augmentation."""
    follower = graph.sole_consumer(index)
    return None if follower is None or not KINDS[follower.kind].augments else follower.index
