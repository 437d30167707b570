"""A quantized model as its solver sees it: the callables of a `SolverView`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.layers.kernel import QuantizeActivation, QuantizedKernel
from tfbinreg.layers.sites import Site, activation_sites, sites_of
from tfbinreg.methods.solver_view import Behind, SolverGrid, SolverKernel, SolverView, unseen
from tfbinreg.network.added_layers import ChannelAffine
from tfbinreg.network.graph import Graph, Node, evaluate, trace
from tfbinreg.network.layer_kinds import relu_limit
from tfbinreg.network.normalizations import ARRAYS, Affine, affine_of
from tfbinreg.training.batch_statistics import inference
from tfbinreg.training.layer_rows import ROWS, LayerRows
from tfbinreg.training.solver_data import Checkpoint
from tfbinreg.training.solver_loss import SolverLoss

keras = _compat.keras
_NORMS = (keras.layers.BatchNormalization, ChannelAffine)


def solver_view(
    model: Any,
    batches: Sequence[Any],
    labels: Sequence[Any] | None,
    checkpoint: Checkpoint,
    tell: Callable[[str], None],
    advance: Callable[[float, str], None] = unseen,
) -> SolverView:
    """What a solver sees of a model.

    Args:
        model: quantized and calibrated.
        batches: of inputs.
        labels: of the batches, for the loss; None without.
        checkpoint: what it keeps.
        tell: prints a line.
        advance: moves a progress bar.
    """
    seen = _Seen(model, batches)
    loss = SolverLoss(model, batches, labels)
    return SolverView(
        kernels=[seen.kernel(node, site) for node, site in seen.kernels],
        grids=[_grid(site, seen.is_edge_grid(site)) for site in activation_sites(model)],
        loss=loss,
        batch_loss=loss.by_batch,
        settle_norms=loss.settle_norms,
        snapshot=lambda: _snapshot(model),
        outputs=seen.outputs,
        grid_values=seen.grid_values,
        tell=tell,
        recall=checkpoint.recall,
        keep=checkpoint.keep,
        advance=advance,
    )


@dataclasses.dataclass(frozen=True)
class _Chain:
    """What follows a kernel up to its grid.

    Attributes:
        nodes: normalizations, then a ReLU and a grid if there are; each the only user of the one
            before.
        last: index of the last node, the kernel's own if nothing follows.
    """

    nodes: tuple[Node, ...]
    last: int

    @property
    def norms(self) -> list[Any]:
        return [node.layer for node in self.nodes if isinstance(node.layer, _NORMS)]


def _chain(graph: Graph, start: Node) -> _Chain:
    nodes: list[Node] = []
    kinds: tuple[Any, ...] = (*_NORMS, keras.layers.ReLU, QuantizeActivation)
    index = start.index
    while kinds and (user := graph.sole_consumer(index)) is not None:
        if not isinstance(user.layer, kinds):
            break
        nodes.append(user)
        index = user.index
        if isinstance(user.layer, QuantizeActivation):
            kinds = ()
        elif isinstance(user.layer, keras.layers.ReLU):
            kinds = (QuantizeActivation,)
    return _Chain(tuple(nodes), index)


class _Seen:
    """A model and its samples."""

    def __init__(self, model: Any, batches: Sequence[Any]) -> None:
        self._model, self._graph = model, trace(model)
        self._inputs = [_compat.graph_inputs(model, batch) for batch in batches]
        nodes = [node for node in self._graph.nodes if isinstance(node.layer, QuantizedKernel)]
        self.kernels = [(node, site) for node in nodes for site in sites_of(node.layer)]
        own = {node.index for node in nodes}
        self._feeding = self._graph.feeding(own)
        self._first = own - self._graph.fed_by(own)
        self._last = own - self._feeding
        self._chains = {site.name: _chain(self._graph, node) for node, site in self.kernels}
        per_batch = -(-ROWS // len(batches))
        self._rows = {
            site.name: LayerRows(site.layer.layer, site.shape, site.name, per_batch)
            for _, site in self.kernels
        }

    def kernel(self, node: Node, site: Site) -> SolverKernel:
        rows = self._rows[site.name]
        shift_by = self._shifted(site)

        def set_latent(latent: np.ndarray) -> None:
            site.kernel.assign(_divided(latent, site.layer.latent_factor()))  # type: ignore[union-attr]

        def shift(numbers: np.ndarray) -> None:
            variable, sign = shift_by  # type: ignore[misc]
            if isinstance(site.layer, FoldedKernel):
                numbers = _divided(numbers, site.layer.fold().factor)
            variable.assign_add(sign * np.asarray(numbers, np.float32))

        return SolverKernel(
            name=site.name,
            quantizer=site.quantizer,
            variables=site.variables,
            latent=lambda: np.asarray(site.latent, np.float32),
            set_latent=set_latent,
            scale=lambda: np.asarray(site.quantizer.scale(site.variables)),
            set_scale=lambda scale: site.quantizer.start_from(
                site.variables, np.asarray(scale, np.float32)
            ),
            shift=None if shift_by is None else shift,
            to_rows=rows.to_rows,
            from_rows=rows.from_rows,
            inputs=lambda: self._inputs_of(node, rows),
            mean_inputs=lambda: self._mean_inputs_of(node, rows),
            behind=lambda: self._behind(site),
            is_edge=node.index in self._first or node.index in self._last,
            is_normalized=any(
                isinstance(norm, keras.layers.BatchNormalization)
                for norm in self._chains[site.name].norms
            ),
        )

    def is_edge_grid(self, site: Site) -> bool:
        """See `SolverGrid`."""
        calls = {node.index for node in self._graph.nodes if node.layer is site.layer}
        return bool(site.quantizer.fixed) or not calls & self._feeding

    def outputs(self) -> dict[str, np.ndarray]:
        """See `SolverView`."""
        ends: dict[int, list[str]] = {}
        for name, chain in self._chains.items():
            ends.setdefault(chain.last, []).append(name)
        found: dict[str, list[np.ndarray]] = {name: [] for name in self._chains}

        def see(node: Node, tensor: Any) -> None:
            for name in ends.get(node.index, ()):
                found[name].append(self._rows[name].of_outputs(tensor, len(found[name])))

        for batch in self._inputs:
            evaluate(self._graph, batch, mode=inference, observer=see)
        return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}

    def grid_values(self, count: int) -> dict[str, np.ndarray]:
        """See `SolverView`."""
        own = {site.name: site.layer for site in activation_sites(self._model)}
        per_batch = -(-count // len(self._inputs))
        samplers = {name: _Sampler(per_batch) for name in own}
        for name, layer in own.items():
            layer.observe_with(samplers[name])
        try:
            for batch in self._inputs:
                for sampler in samplers.values():
                    sampler.begin_batch()
                evaluate(self._graph, batch, mode=inference)
        finally:
            for layer in own.values():
                layer.observe_with(None)
        return {name: sampler.values() for name, sampler in samplers.items()}

    def _inputs_of(self, node: Node, rows: LayerRows) -> np.ndarray:
        found = [
            rows.of_inputs(tensor, number) for number, tensor in enumerate(self._sources(node))
        ]
        return np.concatenate(found, axis=1)

    def _mean_inputs_of(self, node: Node, rows: LayerRows) -> np.ndarray:
        means = [rows.mean_of_inputs(tensor) for tensor in self._sources(node)]
        sizes = [len(batch[0]) for batch in self._inputs]
        return np.average(means, axis=0, weights=sizes)

    def _sources(self, node: Node) -> Iterator[tf.Tensor]:
        """The inputs of a node, batch by batch."""
        (source,) = node.inputs
        before = dataclasses.replace(self._graph, nodes=self._graph.nodes[: source + 1])
        for batch in self._inputs:
            yield evaluate(before, batch, mode=inference)[source]

    def _behind(self, site: Site) -> Behind:
        layer, chain = site.layer, self._chains[site.name]
        if isinstance(layer, FoldedKernel):
            offset = np.asarray(layer.fold().offset, np.float64)
        else:
            bias = layer.layer.bias if layer.layer.use_bias else None
            offset = np.zeros(layer.channels) if bias is None else ARRAYS.read(bias)
        whole = Affine(np.ones(layer.channels), offset)
        for norm in chain.norms:
            whole = affine_of(norm, ARRAYS).behind(whole)
        low, high = -np.inf, np.inf
        for node in chain.nodes:
            if isinstance(node.layer, keras.layers.ReLU):
                limit = relu_limit(node.layer)
                low, high = 0.0, np.inf if limit is None else limit
            elif isinstance(node.layer, QuantizeActivation):
                grid = node.layer.quantizer.grid_now(node.layer.grid_variables)
                scale = float(grid.scale)
                low, high = max(low, int(grid.qmin) * scale), min(high, int(grid.qmax) * scale)
        groups = self._rows[site.name].groups
        return Behind(
            factor=np.reshape(whole.factor, (groups, -1)),
            offset=np.reshape(whole.offset, (groups, -1)),
            low=low,
            high=high,
        )

    def _shifted(self, site: Site) -> tuple[tf.Variable, float] | None:
        """The variable that is added to the outputs of a layer, and its sign."""
        layer = site.layer
        folded = isinstance(layer, FoldedKernel)
        bias = layer.bias if folded else (layer.layer.bias if layer.layer.use_bias else None)
        if bias is not None:
            return bias, 1.0
        norms = layer.norms if folded else self._chains[site.name].norms
        if norms and not isinstance(norms[0], ChannelAffine):
            return norms[0].moving_mean, -1.0
        return None


def _divided(numbers: Any, factor: Any) -> np.ndarray:
    """Numbers divided by factors; a factor of 0 hides what it multiplies, so any number will do."""
    return np.asarray(tf.math.divide_no_nan(tf.cast(numbers, tf.float32), factor))


class _Sampler:
    """Samples the same places in each pass, as an observer of a grid."""

    def __init__(self, per_batch: int) -> None:
        self._per_batch, self._batches = per_batch, list[list[np.ndarray]]()

    def begin_batch(self) -> None:
        self._batches.append([])

    def see(self, inputs: tf.Tensor) -> None:
        self._batches[-1].append(np.asarray(inputs, np.float32).ravel())

    def values(self) -> np.ndarray:
        """Up to so many numbers of each batch, evenly drawn from all tensors on the grid."""
        random, found = np.random.default_rng(0), []
        for tensors in self._batches:
            whole = np.concatenate(tensors)
            places = random.choice(len(whole), min(self._per_batch, len(whole)), replace=False)
            found.append(whole[np.sort(places)])
        return np.concatenate(found)


def _grid(site: Site, is_edge: bool) -> SolverGrid:
    quantizer, variables = site.quantizer, site.variables

    def set_scale(scale: Any) -> None:
        factor = np.float32(scale) / np.float32(quantizer.scale(variables))
        site.layer.coarsen(factor)

    return SolverGrid(
        name=site.name,
        quantizer=quantizer,
        variables=variables,
        scale=lambda: np.asarray(quantizer.scale(variables)),
        set_scale=set_scale,
        is_edge=is_edge,
    )


def _snapshot(model: Any) -> Callable[[], None]:
    kept = [(variable, variable.numpy()) for variable in model.weights]

    def restore() -> None:
        for variable, value in kept:
            variable.assign(value)

    return restore
