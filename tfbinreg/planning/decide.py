"""Decide, before anything is changed, what happens to each layer and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from tfbinreg.core.problems import Problem
from tfbinreg.core.recipe import LayerSettings, Recipe
from tfbinreg.methods import roster
from tfbinreg.network.graph import Graph
from tfbinreg.network.layer_kinds import KINDS, Role, relu_limit
from tfbinreg.planning.grid_plans import grid_plans
from tfbinreg.planning.grid_sharing import share_grids
from tfbinreg.planning.kernel_plans import kernel_plans
from tfbinreg.planning.plan import KernelPlan, Plan
from tfbinreg.planning.wishes import Wishes

_FUSED_LIMITS = (None, 6)  # upper limits of a ReLU that TFLite can fuse


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
    wishes = Wishes(graph, recipe, annotated)
    sharing = share_grids(graph)
    kernels = kernel_plans(sharing, wishes)
    grids = grid_plans(sharing, wishes, kernels)
    chains = sharing.chains.values()
    fused = {index for chain in chains for index in chain}
    plan = Plan(
        graph,
        kernels,
        sharing.chains,
        grids,
        {i: leader for i, leader in sharing.leaders.items() if i not in fused and leader in grids},
        frozenset(index for chain in chains for index in chain if wishes.settings(chain).skip),
    )
    return dataclasses.replace(plan, problems=tuple(_problems(plan, wishes)))


def _kernel_problems(kernel: KernelPlan, name: str, recipe: Recipe) -> Iterator[Problem]:
    spec, method = kernel.spec, kernel.method
    if spec.channel_bits is not None and len(spec.channel_bits) != spec.channels:
        what = f"bits for {len(spec.channel_bits)} channels, and its kernel has {spec.channels}"
        yield Problem(name, what, "give a number for each channel, or one for all")
    problem = roster.bits_problem(method, spec)
    if problem is not None:
        yield Problem(name, problem, "give the layer other bits or another method")
    problem = roster.kernel_problem(method, spec, recipe.options.get(method))
    if problem is not None:
        remedy = "choose others, or give the layer a step per channel or another method"
        yield Problem(name, problem, remedy)
    if kernel.norms is not None and not roster.folds(method):
        what = f"{method} cannot train kernels with normalizations folded in"
        remedy = "leave out fold_batch_norm, or give the layer another method"
        yield Problem(name, what, remedy)


def _severed(plan: Plan) -> Iterator[Problem]:
    """The layers, also last ones, whose pruning leaves no path from the inputs to some output."""
    graph = plan.graph
    pruned = {kernel.node for kernel in plan.kernels.values() if kernel.is_pruned}
    alive = _reached(graph, pruned)
    lost = _reached(graph, set()) - alive
    for output, name in dict(zip(graph.outputs, graph.output_names, strict=True)).items():
        if output in lost:
            for index in sorted(pruned & (graph.feeding({output}) | {output})):
                what = f"pruned as a whole it leaves the output {name!r} without any input"
                yield Problem(graph.nodes[index].name, what, "leave some of its channels a bit")


def _unused_inputs(graph: Graph) -> Iterator[Problem]:
    for index in graph.inputs:
        if not graph.consumers(index) and index not in graph.outputs:
            yield Problem(graph.nodes[index].name, "no layer takes this input", "leave it out")


def _reached(graph: Graph, stops: set[int]) -> set[int]:
    """The nodes that inputs can reach without passing through the nodes in `stops`."""
    found = set(graph.inputs)
    for node in graph.nodes:
        if found.intersection(node.inputs) and node.index not in stops:
            found.add(node.index)
    return found


def _problems(plan: Plan, wishes: Wishes) -> Iterator[Problem]:
    graph, absorbed = plan.graph, plan.absorbed
    if all(KINDS[node.kind].role is not Role.KERNEL for node in graph.nodes):
        remedy = "add a Conv2D, DepthwiseConv2D or Dense"
        yield Problem(graph.name, "no layer has a kernel to quantize", remedy)
    yield from _unused_inputs(graph)
    for node in graph.nodes:
        if KINDS[node.kind].role is not Role.RELU or node.index in absorbed:
            continue
        limit = relu_limit(node.layer)
        on_grid = node.index in plan.grids or node.index in plan.same_grid
        if limit not in _FUSED_LIMITS and on_grid:
            what = f"ReLU up to {limit:g} that shares its grid with tensors without this limit"
            yield Problem(node.name, what, "use a ReLU or a ReLU6 there")
    for kernel in plan.kernels.values():
        name = graph.nodes[kernel.node].name
        if graph.first_call(kernel.node) == kernel.node:
            yield from _kernel_problems(kernel, name, wishes.recipe)
        for index in (kernel.node, *(kernel.norms or ())):
            if kernel.norms is not None and graph.repeated(index):
                what = "is used several times, and each place would fold another kernel"
                remedy = "leave out fold_batch_norm and bias_bits, or use one layer per place"
                yield Problem(graph.nodes[index].name, what, remedy)
    yield from _severed(plan)
    for grid in dict.fromkeys(plan.grids.values()):
        problem = roster.grid_problem(
            grid.method, grid.spec, wishes.recipe.options.get(grid.method)
        )
        if problem is not None and not grid.prescribed:
            remedy = "choose other options, or give the layer another method"
            yield Problem(graph.nodes[grid.nodes[0]].name, problem, remedy)
        methods = wishes.methods(plan.chains[tail] for tail in grid.nodes)
        if len(methods) > 1 and not grid.prescribed:
            what = f"shares its grid with tensors of other methods ({', '.join(methods)})"
            remedy = "give all of them one method"
            yield Problem(graph.nodes[grid.nodes[0]].name, what, remedy)
    for rule in wishes.recipe.unmatched([(node.name, node.kind) for node in graph.nodes]):
        yield Problem(str(rule), "matches no layer", "correct the name or remove the rule")
