"""Evaluation with moving averages of the weights."""

from __future__ import annotations

from typing import Any

from tfbinreg import _compat

keras = _compat.keras


class EvaluateAverages(keras.callbacks.Callback):
    """Validates each epoch with the optimizer's moving averages of the weights.

    Averages of latent weights and steps change fewer codes from epoch to epoch than the weights do
    (Gupta and Asthana, WACV 2024, evaluate in this way, as known from secondary sources). The
    optimizer computes them: compile with `use_ema=True`, as in Adam(1e-3, use_ema=True,
    ema_momentum=0.999). When `fit` ends, Keras replaces the weights with the averages. Put
    `BatchNormReestimation` after this callback: statistics belong to the weights they are measured
    with.

    Raises:
        ValueError: at the start of `fit`, if the optimizer keeps no averages.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trains = False
        self._weights: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if not getattr(optimizer, "use_ema", False):
            raise ValueError(
                "EvaluateAverages needs an optimizer that averages the weights: compile with "
                "use_ema=True."
            )
        self._optimizer = optimizer
        self._trains = True

    def on_test_begin(self, logs: Any = None) -> None:
        if self._trains:
            self._weights = [weight.numpy() for weight in self.model.trainable_variables]
            self._optimizer.finalize_variable_values(self.model.trainable_variables)

    def on_test_end(self, logs: Any = None) -> None:
        for weight, value in zip(self.model.trainable_variables, self._weights, strict=False):
            weight.assign(value)
        self._weights = []

    def on_train_end(self, logs: Any = None) -> None:
        self._trains = False
