"""How each activation grid quantizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence

from tfbinreg.core.recipe import Recipe
from tfbinreg.network.layer_kinds import Role, fixed_grid, relu_limit
from tfbinreg.planning.grid_sharing import Sharing
from tfbinreg.planning.kernel_plans import last_kernels
from tfbinreg.planning.plan import GridPlan
from tfbinreg.planning.signs import lopsided_grids, signed_grids
from tfbinreg.planning.wishes import Wishes

# The paper's start value 2 mean|v| / sqrt(qmax) suits few levels. At 8 bits it spans some 20 means:
# most codes would never be used, so from here on a step starts from the range of the data.
_FEW_BITS = 4


@dataclasses.dataclass(frozen=True)
class _Places:
    """Where grids are, by their leaders.

    Attributes:
        signed: `signed_grids`.
        lopsided: `lopsided_grids`.
        outputs: those of the model's outputs, before a prescribed grid.
        before_last: those that a last kernel reads.
        read: those whose numbers operations read, not only the model's user.
    """

    signed: Collection[int]
    lopsided: Collection[int]
    outputs: Collection[int]
    before_last: Collection[int]
    read: Collection[int]


@dataclasses.dataclass(frozen=True, order=True)
class _Bits:
    """Bits, and why these."""

    number: int
    reason: str


def grid_plans(sharing: Sharing, wishes: Wishes, kernels: Collection[int]) -> dict[int, GridPlan]:
    """The plans of the required grids, by the last nodes of the operations on them.

    Args:
        sharing: which operations share a grid.
        wishes: the wishes for their layers.
        kernels: the nodes of the kernels that are quantized.
    """
    places = _places(sharing, wishes.recipe)
    plans: dict[int, GridPlan] = {}
    for leader, tails in sharing.groups.items():
        if sharing.role(leader) is Role.FIXED and leader not in places.read:
            continue
        if _is_wanted(sharing, wishes, leader, kernels):
            plans.update(dict.fromkeys(tails, _plan(sharing, wishes, leader, places)))
    return plans


def _places(sharing: Sharing, recipe: Recipe) -> _Places:
    signed = signed_grids(sharing, unsigned_input=recipe.unsigned_input)
    outputs = {sharing.leaders[index] for index in sharing.graph.outputs}
    return _Places(
        signed,
        lopsided_grids(sharing, signed),
        {
            sharing.sources(leader)[0] if sharing.role(leader) is Role.FIXED else leader
            for leader in outputs
        },
        {sharing.sources(kernel)[0] for kernel in last_kernels(sharing)},
        _read(sharing),
    )


def _read(sharing: Sharing) -> set[int]:
    """Nodes whose results are used by more than the outputs of the model."""
    read: set[int] = set()
    for node in reversed(sharing.graph.nodes):
        if sharing.role(node.index) is not Role.SAME or node.index in read:
            read.update(node.inputs)
    return read


def _is_wanted(sharing: Sharing, wishes: Wishes, leader: int, kernels: Iterable[int]) -> bool:
    chains = [sharing.chains[tail] for tail in sharing.groups[leader]]
    settings = [wishes.settings(chain) for chain in chains]
    if wishes.recipe.float_activations:
        return any(own.activation_bits is not None for own in settings)
    if all(own.skip for own in settings):
        return False
    if any(wishes.selects(index) for chain in chains for index in chain):
        return True
    return any(sharing.sources(kernel)[0] == leader for kernel in kernels)


def _plan(sharing: Sharing, wishes: Wishes, leader: int, places: _Places) -> GridPlan:
    if sharing.role(leader) is Role.FIXED:
        return GridPlan(
            nodes=(leader,),
            bits=8,
            signed=fixed_grid(sharing.node(leader).layer).signed,
            prescribed=True,
            reason="fixed output grid",
        )
    tails = sharing.groups[leader]
    chains = [sharing.chains[tail] for tail in tails]
    bits = max(_bits(sharing, wishes, tail, places) for tail in tails)
    is_input = sharing.is_input(leader)
    may_have_offset = all(wishes.settings(chain).learned_offset for chain in chains)
    return GridPlan(
        nodes=tails,
        bits=bits.number,
        signed=leader in places.signed,
        offset=leader in places.lopsided and may_have_offset,
        upper_limit=_common_limit(sharing, tails),
        from_range=bits.number > _FEW_BITS or is_input or leader in places.outputs,
        fixed=is_input,
        method=wishes.methods(chains)[0],
        unnormalized=_unnormalized(sharing, chains),
        reason=bits.reason,
    )


def _unnormalized(sharing: Sharing, chains: Iterable[Sequence[int]]) -> str | None:
    """See `GridSpec.unnormalized`."""
    for chain in chains:
        source = [index for index in chain if sharing.role(index) is not Role.RELU][-1]
        layer = sharing.node(source).layer
        if sharing.node(source).kind != "BatchNormalization" or layer.scale or layer.center:
            return sharing.node(source).name
    return None


def _bits(sharing: Sharing, wishes: Wishes, tail: int, places: _Places) -> _Bits:
    """Those of one operation's outputs."""
    recipe, leader = wishes.recipe, sharing.leaders[tail]
    asked = wishes.settings(sharing.chains[tail]).activation_bits
    if asked is not None:
        return _Bits(asked, "set by a rule")
    if sharing.is_input(tail):
        return _Bits(recipe.input_bits, "model input")
    if leader in places.outputs:
        return _Bits(recipe.output_bits, "model output")
    if leader in places.before_last and recipe.first_last_bits is not None:
        bits = max(recipe.first_last_bits, recipe.activation_bits)
        return _Bits(bits, "input of the last kernel")
    if leader in places.signed:
        return _Bits(recipe.signed_activation_bits, "signed activation")
    return _Bits(recipe.activation_bits, "unsigned activation")


def _common_limit(sharing: Sharing, tails: Iterable[int]) -> float | None:
    """The upper limit of all tensors on a grid; None if they have none, or different ones."""
    limits = {
        relu_limit(sharing.node(tail).layer) if sharing.role(tail) is Role.RELU else None
        for tail in tails
    }
    return limits.pop() if len(limits) == 1 else None
