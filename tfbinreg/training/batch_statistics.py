"""A pass through a model whose normalizations take the statistics of the batch, as in training.

Nothing else is as in training: nothing is dropped, no noise is added, no variable changes. Only
augmentation can be active.
"""

from __future__ import annotations

import collections
import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.network.graph import Node, evaluate, trace
from tfbinreg.network.layer_kinds import KINDS
from tfbinreg.training.traced_function import TracedFunction

keras = _compat.keras

# Called with each node and its output.
Observer = Callable[[Node, Any], None]


class BatchStatistics:
    """Runs a model on the statistics of each batch.

    Args:
        model: the model, quantized or not. Subclassed models, also inside another model, run as in
            training: their layers cannot be distinguished from here.
        folded: whether normalizations that are folded into kernels use them too.
        augmented: whether layers that augment images in training do so here.
    """

    def __init__(self, model: Any, *, folded: bool = True, augmented: bool = False) -> None:
        self._model, self._augmented = model, augmented
        # For calls in `measure` only, as momentum 0 is part of what is traced.
        self._measuring = TracedFunction(lambda: _compat.PerShape(self._outputs))
        self._calls: collections.Counter[Any] = collections.Counter()  # of each layer in a pass
        self._measures = False  # whether moving statistics become those of a batch
        self._graph = trace(model) if _compat.is_graph_network(model) else None
        own = [
            layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
        ]
        self._unfolded, self.norms = len(own), own
        self._by_batch: tuple[Any, ...] = (keras.layers.BatchNormalization, keras.Model)
        if folded:
            kernels = [layer for layer in model.layers if isinstance(layer, FoldedKernel)]
            self.norms = own + [norm for layer in kernels for norm in layer.batch_norms]
            self._by_batch += (FoldedKernel,)

    @contextlib.contextmanager
    def momentum(self, momentum: float) -> Iterator[None]:
        """Scope in which a batch updates the moving statistics with this momentum; afterwards they
        and the momenta are restored.
        """
        momenta, self._measures = [norm.momentum for norm in self.norms], momentum == 0.0
        moving = [v for norm in self.norms for v in (norm.moving_mean, norm.moving_variance)]
        before = [variable.numpy() for variable in moving]
        try:
            for norm in self.norms:
                norm.momentum = momentum
            yield
        finally:
            self._measures = False
            for norm, own in zip(self.norms, momenta, strict=True):
                norm.momentum = own
            for variable, value in zip(moving, before, strict=True):
                variable.assign(value)

    def measure(
        self, batches: Iterable[Any], *, traced: bool = False, folded: bool = False
    ) -> None:
        """Set the moving statistics of the normalizations to their means over `batches`.

        Args:
            batches: model inputs.
            traced: whether to run as a graph, which pays off for many batches.
            folded: whether to include folded normalizations, which changes the trained codes.

        Raises:
            ValueError: if there are no batches, or the statistics would not be finite. In that case
                nothing is changed.
        """
        norms = self.norms if folded else self.norms[: self._unfolded]
        moving = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
        found: list[list[np.ndarray]] = []
        with self.momentum(0.0):  # the moving statistics become the batch's own
            run: Any = self._measuring if traced else self
            for batch in batches:
                run(batch)
                found.append([variable.numpy() for variable in moving])
        if not found:
            raise ValueError("The data for re-estimating batch normalization is empty.")
        means = [np.mean(values, axis=0, dtype=np.float64) for values in zip(*found, strict=True)]
        if not all(np.all(np.isfinite(mean)) for mean in means):
            raise ValueError(
                "Batch normalization's statistics would not be finite: the data has NaN or "
                "infinite values, or training diverged. Nothing was changed."
            )
        for variable, mean in zip(moving, means, strict=True):
            variable.assign(mean.astype(np.float32))

    def _outputs(self, inputs: Any) -> list[Any]:
        return self(inputs)

    def __call__(self, inputs: Any, observer: Observer | None = None) -> list[Any]:
        """The model's outputs in order.

        Args:
            inputs: a batch of model inputs.
            observer: receives the output of every layer call.
        """
        if self._graph is None:
            return tf.nest.flatten(self._model(inputs, training=True))
        given = _compat.graph_inputs(self._model, inputs)
        self._calls.clear()
        tensors = evaluate(self._graph, given, mode=self._mode, observer=observer)
        return [tensors[index] for index in self._graph.outputs]

    def _mode(self, layer: Any) -> dict[str, bool]:
        """The training argument: true for layers that use the statistics of the batch, except
        kernels, because the passes of their quantizers would count.
        """
        acts = isinstance(layer, self._by_batch) or (self._augmented and varies_images(layer))
        self._calls[layer] += 1
        if self._measures and isinstance(layer, keras.layers.BatchNormalization):
            # The mean of the calls so far, not the last one's.
            layer.momentum = 1.0 - 1.0 / self._calls[layer]
        if isinstance(layer, FoldedKernel):
            return {"training": False, "by_batch": acts}
        return dict.fromkeys(inference(layer), acts)


def varies_images(layer: Any) -> bool:
    """Whether a layer augments images in training."""
    kind = KINDS.get(type(layer).__name__)
    return kind is not None and kind.augments and not isinstance(layer, keras.layers.GaussianNoise)


def inference(layer: Any) -> dict[str, bool]:
    """The training argument for a layer that has one: False."""
    return {"training": False} if "training" in inspect.signature(layer.call).parameters else {}
