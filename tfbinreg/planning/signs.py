"""The grids with negative numbers, and those whose numbers extend far only on the positive side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from tfbinreg.network.added_layers import keeps_positive
from tfbinreg.network.layer_kinds import Role, activation_name, fixed_grid
from tfbinreg.planning.grid_sharing import Sharing


def signed_grids(sharing: Sharing, *, unsigned_input: bool | None) -> frozenset[int]:
    """Leaders of the grids with a tensor that can be negative.

    Args:
        sharing: the grids.
        unsigned_input: whether the model's inputs are never negative.
    """

    def is_signed(tail: int, signed: AbstractSet[int]) -> bool:
        head = sharing.chains[tail][0]
        if sharing.role(head) is Role.INPUT:
            return not unsigned_input
        if sharing.role(tail) is Role.RELU:
            return False
        if sharing.role(head) is Role.FIXED:
            return fixed_grid(sharing.node(head).layer).signed
        keeps = sharing.kind(head).keeps_sign or (
            sharing.is_input(tail)
            and all(keeps_positive(sharing.node(index).layer) for index in sharing.chains[tail])
        )
        return not keeps or any(source in signed for source in sharing.sources(head))

    return _in_rounds(
        frozenset(),
        lambda signed: (
            leader
            for leader, tails in sharing.groups.items()
            if any(is_signed(tail, signed) for tail in tails)
        ),
    )


def lopsided_grids(sharing: Sharing, signed: AbstractSet[int]) -> frozenset[int]:
    """The signed grids all of whose tensors extend far only on the positive side.

    Args:
        sharing: the grids.
        signed: `signed_grids`.
    """

    def is_lopsided(tail: int, lopsided: AbstractSet[int]) -> bool:
        head = sharing.chains[tail][0]
        kind = sharing.kind(head)
        if sharing.role(tail) is Role.RELU or kind.lopsided or _is_self_gated(sharing, head):
            return True
        if kind.role is Role.FIXED or not kind.keeps_sign:
            return False
        return all(s in lopsided or s not in signed for s in sharing.sources(head))

    return _in_rounds(
        frozenset(signed),
        lambda lopsided: (
            leader
            for leader in lopsided
            if all(is_lopsided(tail, lopsided) for tail in sharing.groups[leader])
        ),
    )


def _in_rounds(
    known: frozenset[int], find: Callable[[frozenset[int]], Iterable[int]]
) -> frozenset[int]:
    """What `find` makes of its own result: a grid may hold what is computed from another tensor on
    it."""
    while (found := frozenset(find(known))) != known:
        known = found
    return known


def _is_self_gated(sharing: Sharing, index: int) -> bool:
    """Whether a node is x * sigmoid(x)."""
    node = sharing.node(index)
    if node.kind != "Multiply":
        return False
    return any(
        gate.kind == "Activation"
        and activation_name(gate.layer) == "sigmoid"
        and gate.inputs[0] in node.inputs
        for gate in map(sharing.node, node.inputs)
    )
