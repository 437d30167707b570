"""The loss that a solver measures, and the normalizations that it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.training.batch_statistics import BatchStatistics


class SolverLoss:
    """The mean compiled loss over some samples, without penalties.

    Each batch is one call of a traced function, which sees new values of variables without being
    retraced.

    Args:
        model: quantized; compiled if there are labels.
        batches: of inputs.
        labels: of the batches, None without.
    """

    def __init__(self, model: Any, batches: Sequence[Any], labels: Sequence[Any] | None) -> None:
        self._model, self._batches = model, batches
        self._statistics = BatchStatistics(model, folded=False)
        self._sizes = [len(tf.nest.flatten(batch)[0]) for batch in batches]
        self._pairs = None
        if labels is not None:
            pairs = zip(batches, labels, strict=True)
            self._pairs = [tf.nest.map_structure(tf.convert_to_tensor, pair) for pair in pairs]
            inputs, targets = self._pairs[0]
            model.compiled_loss(targets, model(inputs, training=False))  # makes its variables
        self._in_inference = tf.function(self._of_inference, autograph=False)
        self._by_batch = tf.function(self._of_batch, autograph=False)

    def __call__(self) -> float:
        """As the model is in inference."""
        return self._mean(self._in_inference)

    def by_batch(self) -> float:
        """With the statistics of each batch in normalizations that are not folded."""
        if not self._statistics.norms:
            return self()
        with self._statistics.momentum(1.0):  # which leaves the moving statistics alone
            return self._mean(self._by_batch)

    def settle_norms(self) -> None:
        """Set the moving statistics of these normalizations to those of the current model."""
        if self._statistics.norms:
            self._statistics.measure(self._batches, traced=True)

    def _mean(self, of_batch: Any) -> float:
        if self._pairs is None:
            raise ValueError(
                "There is no loss without labels: say needs_labels=True in the Method."
            )
        found = [float(of_batch(*pair)) for pair in self._pairs]
        self._model.compiled_loss.reset_state()
        return float(np.average(found, weights=self._sizes))

    def _of_inference(self, inputs: Any, targets: Any) -> tf.Tensor:
        return self._model.compiled_loss(targets, self._model(inputs, training=False))

    def _of_batch(self, inputs: Any, targets: Any) -> tf.Tensor:
        outputs = tf.nest.pack_sequence_as(self._model._nested_outputs, self._statistics(inputs))
        return self._model.compiled_loss(targets, outputs)
