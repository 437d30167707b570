"""`quantize`: a float model -> a quantized one that is calibrated, trained and finalized.

Like `convert` it imports tfbinreg, and only when it is called.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tflite_tools.from_keras.convert import is_tflite, needs_tensorflow
from tflite_tools.from_keras.losses import Loss, Score, chosen_loss, score, targets
from tflite_tools.from_keras.model_samples import samples_and_labels
from tflite_tools.system import files
from tflite_tools.system.progress import Advance, quietly
from tflite_tools.system.suggestions import suggestion

BIN_STRENGTH = 0.5  # of the bin regularization, unless told otherwise
_BIN_REGULARIZATION = "bin_regularization"
_PREDICTED_AT_ONCE = 256
_CALIBRATED, _TRAINED = 0.05, 0.95  # shares of the work that are done by then, for the bar


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How to train.

    Attributes:
        epochs: 0 only calibrates and finalizes.
        batch_size: samples per step.
        learning_rate: Adam's initial rate, with cosine decay to zero.
        loss: name of the loss; None for the one that the model was compiled with.
        from_logits: for a `loss` that is a crossentropy: whether the outputs are logits.
        penalties: strengths of the recipe's penalties by name, which act from the middle of the
            training on.
        distill: whether the float model is a teacher.
        seed: seed of everything random.
        target: as for `tfbinreg.finalize`; None for the recipe's.
        short_constants: as for `tfbinreg.finalize`.
    """

    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 0.001
    loss: str | None = None
    from_logits: bool = False
    penalties: Mapping[str, float] = dataclasses.field(default_factory=dict)
    distill: bool = False
    seed: int = 0
    target: str | None = None
    short_constants: bool = False


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Quantized:
    """The result of `quantize`.

    Attributes:
        saved: the finalized model as the bytes of a file of the requested kind.
        plan: the layers, their bits and the reasons, as text.
        report: what `finalize` did, as text.
        history: what each epoch logged, by name.
        loss: name of the loss; None without labels.
        before: the score of the float model; None without labels.
        after: the score of the finalized model, whose outputs are those of its file.
        samples: number of samples that both were measured on.
        warnings: the warnings of tfbinreg.
    """

    saved: bytes
    plan: str
    report: str
    history: Mapping[str, Sequence[float]]
    loss: str | None
    before: Score | None
    after: Score | None
    samples: int
    warnings: tuple[str, ...]


class _Data(NamedTuple):
    """Inputs in order, and targets with the loss that takes them, if there are labels."""

    inputs: list[np.ndarray]
    targets: np.ndarray | None
    loss: Loss | None

    @property
    def given(self) -> Any:
        """The inputs as a model takes them."""
        return self.inputs if len(self.inputs) > 1 else self.inputs[0]

    @property
    def samples(self) -> Any:
        """Inputs, with targets where there are any, as `finalize` and `solve` take them."""
        return self.given if self.targets is None else (self.given, self.targets)

    def score(self, model: Any) -> Score | None:
        """The score of a model; None without targets."""
        if self.targets is None or self.loss is None:
            return None
        outputs = model.predict(self.given, batch_size=_PREDICTED_AT_ONCE, verbose=0)
        return score(self.loss, self.targets, np.asarray(outputs, np.float32))


def quantize(
    path: str | os.PathLike[str],
    recipe: Any,
    arrays: Mapping[str, np.ndarray],
    training: Training,
    *,
    validation: Mapping[str, np.ndarray] | None = None,
    suffix: str = ".keras",
    advance: Advance = quietly,
) -> Quantized:
    """Quantize a saved float model, train and finalize it.

    Args:
        path: a float Keras model.
        recipe: as for `tfbinreg.quantize_apply`.
        arrays: training samples: one unnamed array, or arrays by input name; training requires
            `labels`.
        training: how to train.
        validation: samples for evaluation; None for the training samples.
        suffix: ".keras" or ".h5".
        advance: is called with the progress of the work.

    Raises:
        ValueError: if the model, the recipe or the samples cannot be used.
        RuntimeError: if TensorFlow is missing.
    """
    if is_tflite(path):
        raise ValueError(f"quantize needs a float Keras model: {os.fspath(path)!r} is TFLite.")
    advance(None, "starting TensorFlow")
    with needs_tensorflow():
        import tfbinreg
        from tfbinreg._compat import keras
        from tfbinreg.training.finalize import finalize_target
        from tfbinreg.training.saving import load_float_model
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", tfbinreg.QuantizationWarning)
        keras.utils.set_random_seed(training.seed)
        advance(None, "reading")
        model = load_float_model(path)
        data = measured = _read(path, model, arrays, training, "training data")
        if validation is not None:
            measured = _read(path, model, validation, training, "validation data")
        before = measured.score(model)
        advance(None, "calibrating")
        quantized = tfbinreg.quantize_apply(model, recipe, calibration_data=data.given)
        finalize_target(quantized, training.target, training.short_constants)
        plan = tfbinreg.plan(model, quantized.recipe)
        history = _train(quantized, data, training, advance)
        advance(_TRAINED, "finalizing")
        report = tfbinreg.finalize(
            quantized,
            data.samples,
            target=training.target,
            short_constants=training.short_constants,
            advance=lambda _, text: advance(_TRAINED, text),
        )
        return Quantized(
            saved=_saved(quantized, suffix),
            plan=str(plan),
            report=str(report),
            history=history,
            loss=None if data.loss is None else data.loss.name,
            before=before,
            after=measured.score(quantized),
            samples=0 if measured.targets is None else len(measured.targets),
            warnings=tuple(dict.fromkeys(str(warning.message) for warning in told)),
        )


def _read(
    path: str | os.PathLike[str],
    model: Any,
    arrays: Mapping[str, np.ndarray],
    training: Training,
    what: str,
) -> _Data:
    inputs, labels = samples_and_labels(model, arrays, what)
    if labels is None:
        if training.epochs or training.loss is not None:
            raise ValueError(
                f"There are no `labels` in the {what}, an array beside the inputs in an .npz file. "
                "Without them --epochs 0 without --loss only calibrates."
            )
        return _Data(inputs, None, None)
    if len(model.outputs) > 1:
        raise ValueError(
            f"The model has {len(model.outputs)} outputs, and `labels` are for one: train it in "
            "Python with tfbinreg.quantize_apply."
        )
    loss = chosen_loss(path, training.loss, training.from_logits)
    return _Data(inputs, targets(labels, loss, model.outputs[0].shape[1:]), loss)


def _train(
    model: Any, data: _Data, training: Training, advance: Advance
) -> Mapping[str, Sequence[float]]:
    """Train a calibrated model; returns what its epochs logged."""
    from tfbinreg import distill, solve
    from tfbinreg._compat import keras

    callbacks = _callbacks(model, training)
    _check_method(model.recipe)
    if data.loss is None or data.targets is None:
        if model.recipe.solver is not None:
            solve(model, data.samples, verbose=0, advance=advance)
        return {}
    steps = -(-len(data.targets) // training.batch_size)
    total = max(1, training.epochs * steps)
    rate = keras.optimizers.schedules.CosineDecay(training.learning_rate, total)
    metrics = ["accuracy"] if data.loss.has_classes else None
    model.compile(keras.optimizers.Adam(rate), data.loss.function, metrics)
    if model.recipe.solver is not None:
        solve(model, data.samples, verbose=0, advance=advance)
        advance(None, "solved")  # the bar begins anew
    if not training.epochs:
        return {}
    if training.distill:
        distill(model)
    done = itertools.count(1)

    def tell(_: int, logs: Mapping[str, float] | None) -> None:
        step = next(done)
        share = _CALIBRATED + (_TRAINED - _CALIBRATED) * step / total
        epoch = -(-step // steps)
        loss = (logs or {}).get("loss", float("nan"))
        advance(share, f"epoch {epoch} of {training.epochs}, loss {loss:.4g}")

    made = model.fit(
        data.given,
        data.targets,
        batch_size=training.batch_size,
        epochs=training.epochs,
        verbose=0,
        callbacks=[*callbacks, keras.callbacks.LambdaCallback(on_batch_end=tell)],
    )
    return {name: [float(value) for value in values] for name, values in made.history.items()}


def _check_method(recipe: Any) -> None:
    """Reject methods that are trained in their own stages."""
    from tfbinreg.methods import roster

    names = {recipe.method, *(rule.method for rule in recipe.rules)} - {None}
    staged = sorted(name for name in names if roster.find(name, "weights").fit is not None)
    if staged:
        raise ValueError(
            f"The method {staged[0]!r} is trained in stages: do it in Python, with tfbinreg.solve "
            "between two calls of fit."
        )


def _callbacks(model: Any, training: Training) -> list[Any]:
    """The schedules of the penalties, and the callback for folded normalizations."""
    from tfbinreg import BinRegularization, FreezeBatchNorm, PenaltySchedule

    given, names = training.penalties, model.recipe.penalties
    for name in given:
        if name not in names:
            raise ValueError(f"The recipe has no penalty {name!r}{suggestion(name, names)}.")
    callbacks: list[Any] = []
    for name in names:
        is_bins = name == _BIN_REGULARIZATION
        strength = given.get(name, BIN_STRENGTH if is_bins else None)
        if strength is None:
            raise ValueError(
                f"The recipe has the penalty {name!r}: say how strong it is to be with --penalty "
                f"{name}=STRENGTH; 0 leaves it out."
            )
        if strength and is_bins:
            callbacks.append(BinRegularization("two_stage", training.epochs // 2, strength))
        elif strength:
            callbacks.append(PenaltySchedule(name, "two_stage", training.epochs // 2, strength))
    folded = [norm for layer in model.layers for norm in getattr(layer, "batch_norms", ())]
    if folded and training.epochs > 1:
        callbacks.append(FreezeBatchNorm(training.epochs * 3 // 4))
    return callbacks


def _saved(model: Any, suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"quantized{suffix}")
        model.save(path)
        return files.read(path)
