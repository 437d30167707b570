"""`strip_quantization`: the float model inside a quantized one, with its current weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tfbinreg import _compat
from tfbinreg.frontend.program import unique_name
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.layers.kernel import QuantizeActivation, QuantizedHardSwish, QuantizedKernel
from tfbinreg.layers.sites import require_quantized
from tfbinreg.network.added_layers import HardSwish, keeps_positive
from tfbinreg.network.fusing import can_fuse
from tfbinreg.network.graph import Node, apply, clone_layer, rebuild, trace
from tfbinreg.network.layer_kinds import KINDS, Role

keras = _compat.keras


def strip_quantization(model: Any) -> Any:
    """The plain float model that a quantized model trains, with copies of its current weights.

    Kernels are the latent float weights, not the codes. Folded normalizations become layers again,
    and so do the ReLUs that grids contain. Where several tensors share a grid, only the first
    tensor's ReLU keeps its name; the others are named after the layers before them. The model may
    have been loaded.

    Args:
        model: from `quantize_apply` or `load_model`.

    Returns:
        A functional tf_keras model of the layers in docs/supported.md, not compiled.

    Raises:
        ValueError: if `model` is not quantized.
    """
    require_quantized(model)
    graph = trace(model)
    stripper = _Stripper(graph.nodes)
    stripped = rebuild(graph, stripper.call)
    for layer, weights in stripper.copies:
        if layer.weights:
            layer.set_weights(weights)
    return stripped


class _Stripper:
    """Calls the layers of the float model, one node of the quantized model at a time."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._names = {layer.name for node in nodes for layer in _float_layers(node.layer)}
        self.copies: list[tuple[Any, list[Any]]] = []  # new layers and their weights
        self._copied: dict[int, Any] = {}  # those by ids of what they are copies of

    def call(self, node: Node, tensors: Sequence[Any]) -> Any:
        with _compat.dtype_policy(node.layer):
            return self._float(node, tensors)

    def _float(self, node: Node, tensors: Sequence[Any]) -> Any:
        layer = node.layer
        if isinstance(layer, keras.layers.InputLayer):
            return tensors[0]
        if isinstance(layer, QuantizedHardSwish):
            return HardSwish(name=layer.operation)(tensors[0])
        if isinstance(layer, QuantizeActivation):
            return self._without_grid(node, tensors[0])
        for part in _float_layers(layer):
            tensors = [apply(self._copy(layer, part), tensors)]
        return tensors[0]

    def _copy(self, layer: Any, part: Any) -> Any:
        """A new layer like `part` of a layer of the quantized model, the same for each call."""
        if id(part) in self._copied:
            return self._copied[id(part)]
        bias, changes = [], {}
        if isinstance(layer, FoldedKernel) and part is layer.layer:
            changes["use_bias"] = layer.use_bias
            bias = [] if layer.bias is None else [layer.bias.numpy()]
        copy = clone_layer(part, **changes)
        self.copies.append((copy, [*part.get_weights(), *bias]))
        self._copied[id(part)] = copy
        return copy

    def _without_grid(self, node: Node, tensor: Any) -> Any:
        """The input of a grid, after the ReLU that the grid contains, if any."""
        quantizer, member = node.layer.quantizer, node.options.get("member", 0)
        before = _float_layers(self._nodes[node.inputs[0]].layer)[-1]
        kind = KINDS.get(type(before).__name__)
        fuses = kind is not None and can_fuse(kind, Role.RELU)
        if member is None or getattr(quantizer, "signed", True) or not fuses:
            return tensor
        # A grid is called after the layer at the end of the operation, which here is the ReLU.
        name = re.sub(r"_grid(_\d+)?$", "", node.layer.name)
        if member:
            name, there = f"{before.name}_relu", not self._is_positive(node.inputs[0])
        else:
            there = name != before.name and not quantizer.fixed
        if not there:
            return tensor
        name = unique_name(name, self._names)
        self._names.add(name)
        return keras.layers.ReLU(quantizer.upper_limit, name=name)(tensor)

    def _is_positive(self, index: int) -> bool:
        """Whether a node's output is never negative, as far as its inputs' grids show."""
        node = self._nodes[index]
        if isinstance(node.layer, QuantizeActivation):
            return not getattr(node.layer.quantizer, "signed", True)
        kind = KINDS.get(node.kind)
        if kind is None:
            return False
        affine = node.kind == "ChannelAffine" and keeps_positive(node.layer)
        keeps = affine or kind.keeps_sign or kind.role is Role.SAME
        return keeps and all(map(self._is_positive, node.inputs))


def _float_layers(layer: Any) -> list[Any]:
    """The layers of the float model that a layer of the quantized model stands for or wraps."""
    if isinstance(layer, QuantizedKernel):
        return [layer.layer, *getattr(layer, "norms", ())]
    return [layer]
