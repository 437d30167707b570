"""How each kernel is quantized."""

from __future__ import annotations

import numpy as np

from tfbinreg.methods.contract import KernelSpec
from tfbinreg.network.layer_kinds import Role
from tfbinreg.planning.grid_sharing import Sharing
from tfbinreg.planning.plan import KernelPlan
from tfbinreg.planning.wishes import Wishes


def kernel_plans(sharing: Sharing, wishes: Wishes) -> dict[int, KernelPlan]:
    """The plans of the kernels that are to be quantized, by their nodes."""
    ends = first_kernels(sharing) | last_kernels(sharing)
    # A layer that is used several times has one kernel, and is at an edge if any of its calls is.
    edges = {id(sharing.node(index).layer) for index in ends}
    return {
        index: _plan(sharing, wishes, index, is_edge=id(sharing.node(index).layer) in edges)
        for index in _kernels(sharing)
        if wishes.selects(index)
    }


def first_kernels(sharing: Sharing) -> set[int]:
    """Those that read a model input, or constants applied to one."""
    return {index for index in _kernels(sharing) if sharing.is_input(sharing.sources(index)[0])}


def last_kernels(sharing: Sharing) -> set[int]:
    """Those from which no other kernel is reached."""
    kernels = set(_kernels(sharing))
    return kernels - sharing.graph.feeding(kernels)


def _kernels(sharing: Sharing) -> list[int]:
    nodes = sharing.graph.nodes
    return [node.index for node in nodes if sharing.role(node.index) is Role.KERNEL]


def _plan(sharing: Sharing, wishes: Wishes, index: int, *, is_edge: bool) -> KernelPlan:
    recipe, settings, kind = wishes.recipe, wishes.settings([index]), sharing.kind(index)
    bits = settings.weight_bits
    if bits is None:
        bits = (recipe.first_last_bits if is_edge else None) or recipe.weight_bits
    kernel = getattr(sharing.node(index).layer, kind.kernel or "")
    chain = next(chain for chain in sharing.chains.values() if chain[0] == index)
    norms = tuple(other for other in chain if sharing.role(other) is Role.NORM)
    # Without a normalization and with long biases there is nothing to fold, and nothing in the way
    # of several calls.
    folds = recipe.fold_batch_norm and (
        bool(norms) or recipe.bias_bits is not None or not sharing.graph.repeated(index)
    )
    spec = KernelSpec.of(
        bits,
        per_channel=bool(settings.per_channel),
        channel_axis=kind.channel_axis,
        channels=int(kernel.shape[kind.channel_axis]),
    )
    return KernelPlan(
        node=index,
        spec=spec,
        parameters=int(np.prod(kernel.shape)),
        norms=norms if folds else None,
        bias_bits=recipe.bias_bits,
        bin_weight=settings.bin_weight,
        penalty_weights=settings.penalty_weights,
        method=settings.method or recipe.method,
    )
