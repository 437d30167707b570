"""Re-estimation of batch-normalization statistics.

At low bits the running averages lag behind weights whose codes flip from step to step, which costs
accuracy points in evaluation (Nagel et al., ICML 2022, section 3).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from tfbinreg import _compat
from tfbinreg.core.warning import warn_never_acts
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.training.batch_statistics import BatchStatistics
from tfbinreg.training.calibrate import check_batch, input_batches
from tflite_tools.system.progress import Advance, counted, quietly

keras = _compat.keras


def reestimate_batch_norm(model: Any, data: Any, *, batches: int = 50) -> None:
    """Replace every BatchNormalization's moving statistics by averages over training batches.

    Each batch is normalized with its own statistics, as in training, and the means and variances
    are averaged with equal weight. Nothing is dropped, no noise is added, and no weight changes.
    Batches of about 100 samples or more give good variances. Use the batches that `fit` was given:
    weights trained on augmented images expect the statistics of augmented images. For this reason,
    layers of the model that augment images act here as in training. Normalizations that are folded
    during training are left alone: their statistics are part of the trained codes.

    Args:
        model: the model, quantized or not; its moving means and variances are set.
        data: training inputs in batches: a tf.data.Dataset or an iterable. Labels are dropped. An
            array is split into batches of 64.
        batches: how many batches to use.

    Raises:
        ValueError: if the data is empty, has an unknown form or shapes that differ from the inputs,
            or gives statistics that are not finite. In that case nothing is changed.
    """
    Reestimation(model).run(data, batches)


class Reestimation:
    """What `reestimate_batch_norm` does with a model; its passes are traced once for all runs."""

    def __init__(self, model: Any) -> None:
        self._inputs = model.inputs
        self._statistics = BatchStatistics(model, augmented=True)

    def run(self, data: Any, batches: int, *, advance: Advance = quietly) -> None:
        """Like `reestimate_batch_norm`; `advance` is called for each batch."""

        def checked() -> Iterator[Any]:
            found = itertools.islice(input_batches(data), batches)
            for batch in counted(found, advance, "re-estimating normalizations: batch"):
                check_batch(batch, self._inputs)
                yield batch

        if self._statistics.norms:
            self._statistics.measure(checked(), traced=True)


class BatchNormReestimation(keras.callbacks.Callback):
    """Runs `reestimate_batch_norm` before each validation, and once more when training ends.

    Args:
        data: training inputs, as for `reestimate_batch_norm`; iterated again each time.
        batches: how many batches to use.
        before_validation: whether to run before each epoch's validation too, so that the validation
            metrics are those of the final model.
    """

    def __init__(self, data: Any, *, batches: int = 50, before_validation: bool = True) -> None:
        super().__init__()
        self._data, self._batches = data, batches
        self._before_validation = before_validation
        self._training = False
        self._reestimation: Reestimation | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._training, self._reestimation = True, None

    def on_test_begin(self, logs: Any = None) -> None:
        if self._training and self._before_validation:
            self._reestimate()

    def on_train_end(self, logs: Any = None) -> None:
        self._training = False
        self._reestimate()

    def _reestimate(self) -> None:
        if self._reestimation is None:
            self._reestimation = Reestimation(self.model)
        self._reestimation.run(self._data, self._batches)


class FreezeBatchNorm(keras.callbacks.Callback):
    """Freezes the statistics of folded normalizations (`recipes.hardware_friendly`) at an epoch.

    Before that epoch, training normalizes with the statistics of each batch; from then on with the
    moving statistics, as inference does and the device will. Freeze late, when the moving
    statistics have settled, and leave some epochs for the weights to adapt. Nothing is retraced. If
    training is too short to reach the epoch, a `QuantizationWarning` is issued.

    Args:
        epoch: first epoch, counted from 0, with frozen statistics. It is compared with the epoch
            number that Keras reports, so a resumed training is in the right state.

    Raises:
        ValueError: if `epoch` is negative; when training begins, if the model has no folded
            normalizations.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__()
        if epoch < 0:
            raise ValueError(f"epoch must not be negative, got {epoch}.")
        self._epoch = epoch

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self._layers = [layer for layer in model.layers if isinstance(layer, FoldedKernel)]
        if not any(layer.batch_norms for layer in self._layers):
            raise ValueError(
                f"Model {model.name!r} folds no batch normalization: quantize it with "
                "recipes.hardware_friendly or Recipe(fold_batch_norm=True)."
            )

    def on_train_begin(self, logs: Any = None) -> None:
        epochs = self.params.get("epochs", 0)
        if self._epoch >= epochs:
            warn_never_acts("FreezeBatchNorm", "epoch", self._epoch, epochs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for layer in self._layers:
            layer.statistics_frozen.assign(int(epoch >= self._epoch))
