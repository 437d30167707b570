"""Plan -> quantized model: kernels and activations put on learned grids."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from tfbinreg import _compat
from tfbinreg.core.recipe import Recipe
from tfbinreg.frontend.program import layer_name
from tfbinreg.layers.config import LSQQuantizeConfig
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.layers.kernel import QuantizeActivation, QuantizedHardSwish, QuantizedKernel
from tfbinreg.methods import roster
from tfbinreg.methods.fixed_grid import PrescribedQuantizer
from tfbinreg.methods.trace_facts import shapes_only
from tfbinreg.network.graph import Node, apply, clone_layer, rebuild
from tfbinreg.network.layer_kinds import KINDS, Role, fixed_grid
from tfbinreg.planning.plan import GridPlan, KernelPlan, Plan


def place(plan: Plan, make_model: Callable[..., Any], recipe: Recipe) -> Any:
    """Build the quantized model that `plan` describes, with the weights of the planned one.

    Args:
        plan: without problems.
        make_model: called as make_model(inputs, outputs, name=...).
        recipe: says where the weight steps start, and the methods' options.
    """
    placer = _Placer(plan, recipe)
    with shapes_only():
        quantized = rebuild(plan.graph, placer.call, make_model)
    for source, set_weights in placer.copies:
        if source.weights:
            set_weights(source.get_weights())
    for layer in quantized.layers:
        if isinstance(layer, QuantizedKernel):
            layer.initialize_steps(recipe.weight_start)
    return quantized


class _Placer:
    """Calls the layers of the quantized model, one node of the plan at a time."""

    def __init__(self, plan: Plan, recipe: Recipe) -> None:
        self.plan, self.recipe, self.absorbed = plan, recipe, plan.absorbed
        self.folded = {i for kernel in plan.kernels.values() for i in kernel.norms or ()}
        # Layers of the plan, and what takes their weights once the model is built.
        self.copies: list[tuple[Any, Callable[[Any], None]]] = []
        self.grid_layers: dict[int, QuantizeActivation] = {}  # by the first node on the grid
        self._made: dict[int, Any] = {}  # layers by the first node that calls them

    def call(self, node: Node, tensors: Sequence[Any]) -> Any:
        with _compat.dtype_policy(node.layer):
            return self._quantized(node, tensors)

    def _quantized(self, node: Node, tensors: Sequence[Any]) -> Any:
        output = self._compute(node, tensors)
        grid = self.plan.grids.get(node.index)
        if grid is not None:
            leader = grid.nodes[0]
            if leader not in self.grid_layers:
                self.grid_layers[leader] = self._grid_layer(grid, self._namesake(leader))
            return self.grid_layers[leader](output, member=grid.nodes.index(node.index))
        owner = self.plan.same_grid.get(node.index)
        if owner is not None and KINDS[node.kind].regrid:
            averaged = node.kind == "AveragePooling2D"
            return self.grid_layers[owner](output, member=None, averaged=averaged)
        return output

    def _namesake(self, tail: int) -> Node:
        """The layer that names the grid after `tail`: an input, or the last one."""
        head = self.plan.graph.nodes[self.plan.chains[tail][0]]
        is_input = KINDS[head.kind].role is Role.INPUT
        return head if is_input else self.plan.graph.nodes[tail]

    def _compute(self, node: Node, tensors: Sequence[Any]) -> Any:
        absorbed = node.index in self.absorbed | self.folded or self._is_exact(node)
        if KINDS[node.kind].role is Role.INPUT or absorbed:
            return tensors[0]
        kernel = self.plan.kernels.get(node.index)
        if kernel is not None and kernel.norms is not None:
            return apply(self._folded(node, kernel), tensors)
        first = self.plan.graph.first_call(node.index)
        if first not in self._made:
            layer: Any = self._copy(node)
            if kernel is not None:
                layer = QuantizedKernel(layer, _config(kernel, self.recipe))
            self._made[first] = layer
        return apply(self._made[first], tensors)

    def _copy(self, node: Node) -> Any:
        layer = clone_layer(node.layer)
        self.copies.append((node.layer, layer.set_weights))
        return layer

    def _folded(self, node: Node, kernel: KernelPlan) -> FoldedKernel:
        """A kernel with its normalizations; it keeps the bias, which acts before them."""
        source = self._source(node)
        layer = FoldedKernel(
            clone_layer(node.layer, use_bias=False),
            _config(kernel, self.recipe),
            [self._copy(self.plan.graph.nodes[index]) for index in kernel.norms or ()],
            use_bias=node.layer.use_bias,
            bias_bits=kernel.bias_bits,
            source=None if source is None else source.name,
        )
        self.copies.append((node.layer, layer.set_layer_weights))
        return layer

    def _is_exact(self, node: Node) -> bool:
        """Whether a node is a hard swish between learned grids, the second of which is its own."""
        grid = self.plan.grids.get(node.index)
        if node.kind != "HardSwish" or grid is None or len(grid.nodes) > 1:
            return False
        source = self._source(node)
        return source is not None and bool(source.grid_variables)

    def _source(self, node: Node) -> QuantizeActivation | None:
        """The layer on whose grid the first input of a node lies."""
        index = node.inputs[0]
        grid = self.plan.grids.get(index)
        owner = self.plan.same_grid.get(index) if grid is None else grid.nodes[0]
        return None if owner is None else self.grid_layers.get(owner)

    def _grid_name(self, node: Node) -> str:
        """`<layer>_grid`, in characters a layer may have: an Input may have any name."""
        wanted = layer_name(f"{node.name}_grid")
        taken = {layer.name for layer in self.grid_layers.values()}
        numbered = (f"{wanted}_{number}" for number in itertools.count(1))
        return next(name for name in itertools.chain([wanted], numbered) if name not in taken)

    def _grid_layer(self, grid: GridPlan, node: Node) -> QuantizeActivation:
        quantizer, name = _quantizer(grid, node, self.recipe), self._grid_name(node)
        source = self._source(node) if self._is_exact(node) else None
        if source is None:
            return QuantizeActivation(quantizer, name=name)
        layer = QuantizedHardSwish(quantizer, node.name, source.name, name=name)
        layer.bind(source)
        return layer


def _config(kernel: KernelPlan, recipe: Recipe) -> LSQQuantizeConfig:
    per_channel = kernel.spec.axis is not None
    return LSQQuantizeConfig(
        kernel.bits,
        None,
        per_channel,
        bin_weight=kernel.bin_weight,
        penalty_weights=kernel.penalty_weights,
        method=kernel.method,
        options=recipe.options.get(kernel.method),
    )


def _quantizer(grid: GridPlan, node: Node, recipe: Recipe) -> Any:
    if grid.prescribed:
        fixed = fixed_grid(node.layer)
        return PrescribedQuantizer(float(fixed.scale), fixed.qmin, fixed.qmax)
    return roster.activation_quantizer(grid.method, grid.spec, recipe.options.get(grid.method))
