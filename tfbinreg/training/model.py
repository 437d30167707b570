"""`QuantizedModel`: a functional model that carries its recipe and the bin regularization."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.recipe import BIN_REGULARIZATION, Recipe
from tfbinreg.core.target import NOT_FINALIZED
from tfbinreg.core.warning import QuantizationWarning, warn_unfinalized
from tfbinreg.frontend.keras3_objects import takes_keras3_callbacks, to_tf_keras
from tfbinreg.layers.kernel import BoundLayer, QuantizedKernel
from tfbinreg.layers.sites import kernel_sites, sites
from tfbinreg.methods import roster
from tfbinreg.methods.trace_facts import shapes_only
from tfbinreg.training.integer_inference import IntegerInference
from tfbinreg.training.model_config import quantization_config, saved_recipe
from tfbinreg.training.penalties import Penalty
from tfbinreg.training.step_holding import hold, slow_down
from tfbinreg.training.traced_function import TracedFunction
from tfbinreg.training.training_progress import curvature_of, with_own_callbacks
from tfbinreg.training.weight_files import check_bits, record_bits
from tfbinreg.training.weight_updates import Update, WeightUpdates

keras = _compat.keras

_UNTRAINED: dict[str, Any] = {
    "trainable": False,
    "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
}


@_compat.register
class QuantizedModel(_compat.Functional):
    """The model `quantize_apply` returns: a functional tf_keras model with three additions.

    tfmot's own `quantize_apply` also returns one when given an `LSQQuantizeScheme`.

    - One `add_loss` callable over all quantized kernels adds each penalty of the recipe times its
      strength. At strength zero (the start) it is skipped and training is plain LSQ, bit for bit.
      Keras counts it once, not once per replica, and it is attached again whenever the model is
      rebuilt from its config.
    - `compile` excludes the learned steps from the optimizer's decoupled weight decay.
    - The recipe travels with the configuration.

    Attributes:
        strengths: float32 variable of each penalty, by name; not trained, saved with the model.
        bin_strength: the strength of the bin regularization.
        strength_factors: float32 variable, (kernels,), of each penalty, by name: factors that
            multiply each kernel's part in addition to the strength. They are ones unless a schedule
            sets them, and are not weights.
        steps_held: int32 variable; 1 keeps the steps fixed while the weights train. It has an
            effect only after `enable_step_holding`.
        updates: the updates of the quantizers and of the recipe, with their state variables.
        code_changes: float32 variable, (kernels,). After `enable_change_counts`, each train step
            adds the share of changed codes to it; None before.
        training_progress: float32 variable, the fraction of `fit` that is done, for the recipe's
            updates.
        progress_per_step: float32 variable, the progress that one train step adds.
        float_model: returns the float model it was made from; None for a loaded model.
        distillation: how the model learns from a teacher (`distill`); None without one.
        finalized: int32 variable; nonzero after `finalize`, when inference computes what the file
            computes (`target.STATES`).
    """

    made_from: dict[str, Any]  # of a loaded model: the configuration
    train_function: Any
    test_function: Any
    predict_function: Any
    recipe = Recipe()
    strengths: dict[str, tf.Variable] = {}  # noqa: RUF012, replaced, never changed
    code_changes: tf.Variable | None = None
    updates: tuple[Update, ...] = ()
    # A function, as Keras would save a model that is an attribute.
    float_model: Callable[[], Any] | None = None
    distillation: Any = None  # a `training.distillation.Distillation`
    strength_factors: dict[str, tf.Variable] = {}  # noqa: RUF012, likewise
    _can_hold_steps = False
    _is_trained = False  # since it was built or loaded

    def __init__(
        self, inputs: Any, outputs: Any, name: Any = None, trainable: bool = True, **kwargs: Any
    ) -> None:
        # A functional model's own arguments, by which Keras knows that it can clone and save it.
        super().__init__(inputs, outputs, name, trainable, **kwargs)
        self._integers = IntegerInference()
        for layer in self.layers:
            if isinstance(layer, BoundLayer) and layer.source is not None:
                layer.bind(self.get_layer(layer.source))
        # First, and of every model: files of version 0.1.0 hold these three in this order.
        self._add_strength(BIN_REGULARIZATION, "bin_strength")
        self.steps_held = tf.Variable(0, name="steps_held", dtype=tf.int32, **_UNTRAINED)
        self.finalized = tf.Variable(0, name="finalized", dtype=tf.int32, **_UNTRAINED)
        for attribute in ("training_progress", "progress_per_step"):
            # Not setattr(self, ...): Keras would save it.
            object.__setattr__(self, attribute, tf.Variable(0.0, name=attribute, **_UNTRAINED))
        for layer in self.layers:
            if isinstance(layer, QuantizedKernel) and layer.made_with is not None:
                self._take(layer.made_with)
        self.add_loss(self._penalty_losses)

    def describe(self, recipe: Recipe) -> None:
        """Record the recipe on the model, and on every model that is cloned from its layers."""
        self._take(recipe)
        for layer in self.layers:
            if isinstance(layer, QuantizedKernel):
                layer.remember(recipe)

    def _take(self, recipe: Recipe) -> None:
        self.recipe = recipe
        for name in roster.penalties_of(recipe):
            if name not in self.strengths:
                self._add_strength(name, f"{name}_strength")
        if not self.updates:
            updates = (*self._own_updates(), *map(self._new_update, recipe.updates))
            object.__setattr__(self, "updates", updates)

    def _own_updates(self) -> tuple[Update, ...]:
        """The update of kernels whose quantizers change them after each step, if there are any."""
        own = {
            site.name: site.quantizer
            for site in kernel_sites(self)
            if getattr(site.quantizer, "acts_after_steps", False)
        }
        update = Update(
            apply=lambda step, state: (own[step.name].after_step(step), state),
            holds_steps=False,
            states={name: {} for name in own},
        )
        return (update,) if own else ()

    def _new_update(self, name: str) -> Update:
        """An update of this name with its state variables, which are saved with the model."""
        method: Any = roster.find(name, "update")
        options = roster.options_of(self.recipe, method)
        states: dict[str, dict[str, tf.Variable]] = {}
        for index, site in enumerate(kernel_sites(self)):
            starts = method.state(site.shape, options) if method.state else {}
            states[site.name] = {}
            for part, start in starts.items():
                own_name = f"{site.name}_{name}_{part}"
                states[site.name][part] = tf.Variable(start, name=own_name, **_UNTRAINED)
                # Keras saves it by this name, which must not depend on names it makes up.
                setattr(self, f"{name}_{part}_{index}", states[site.name][part])
        return Update(
            apply=lambda step, state: method.update(step, state, options),
            holds_steps=method.holds_steps is not None and method.holds_steps(options),
            states=states,
            name=name,
        )

    def _add_strength(self, penalty: str, attribute: str) -> None:
        strength = tf.Variable(self._first_strength(penalty), name=attribute, **_UNTRAINED)
        setattr(self, attribute, strength)  # by which Keras saves it
        # Not self.strengths = ...: Keras would save it twice.
        object.__setattr__(self, "strengths", {**self.strengths, penalty: strength})
        ones = tf.ones(len(kernel_sites(self)))
        factors = tf.Variable(ones, name=f"{penalty}_factors", **_UNTRAINED)
        object.__setattr__(self, "strength_factors", {**self.strength_factors, penalty: factors})

    def _first_strength(self, penalty: str) -> float:
        method = roster.find(penalty, "penalty")
        return method.strength(roster.options_of(self.recipe, method)) if method.strength else 0.0

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> Any:
        """As in tf_keras; a SavedModel, whose functions read the factors, holds them too."""
        children = super()._trackable_children(save_type, **kwargs)
        if save_type == "savedmodel":
            factors = {f"{name}_factors": own for name, own in self.strength_factors.items()}
            return {**children, **factors}
        return children

    def penalty(self, name: str) -> tf.Tensor:
        """A penalty summed over the quantized kernels, without its strength; float32 scalar.

        Raises:
            ValueError: if the recipe does not include it.
        """
        return self.penalty_of(name).value()

    def penalty_loss(self, name: str) -> tf.Tensor:
        """A penalty times its strength; at strength 0 it returns 0 without computing anything."""
        optimizer = getattr(self, "optimizer", None)
        rate = None if optimizer is None else _compat.learning_rate(optimizer)
        return self.penalty_of(name).loss(tf.convert_to_tensor(self.strengths[name]), rate)

    def penalty_of(self, name: str) -> Penalty:
        """The penalty of this name, which the recipe must have (`penalty`)."""
        known = roster.penalties_of(self.recipe)
        if name not in known:
            raise ValueError(
                f"Model {self.name!r} has no penalty {name!r}, only {', '.join(known) or 'none'}: "
                "name it in Recipe(penalties=...)."
            )
        method = roster.find(name, "penalty")
        options = roster.options_of(self.recipe, method)
        return Penalty(method, options, kernel_sites(self), self.strength_factors[name])

    def _penalty_losses(self) -> tf.Tensor:
        """The sum of `penalty_loss` over the penalties."""
        losses = [self.penalty_loss(name) for name in roster.penalties_of(self.recipe)]
        return tf.add_n(losses) if losses else tf.constant(0.0)

    @property
    def step_variables(self) -> list[tf.Variable]:
        """The learned steps and offsets of all kernels and activations; inputs have fixed ones."""
        return [variable for site in sites(self) for variable in site.learned]

    def enable_step_holding(self) -> None:
        """Make the train step respect `steps_held`; retraces it if it was built without."""
        if not self._can_hold_steps:
            self._can_hold_steps = True
            self.train_function = None

    def enable_change_counts(self) -> None:
        """Make the train step count in `code_changes`; retraces it if it was already built."""
        if self.code_changes is None:
            with self.distribute_strategy.scope():
                start = [0.0] * len(kernel_sites(self))
                changes = tf.Variable(start, name="code_changes", **_UNTRAINED)
            object.__setattr__(self, "code_changes", changes)
            self.train_function = None

    # False, not None, which Keras' augmentation layers take for training.
    def call(self, inputs: Any, training: Any = False, mask: Any = None) -> Any:
        if tf.is_tensor(training) or training:
            return super().call(inputs, training, mask)
        if tf.distribute.in_cross_replica_context() or not tf.distribute.has_strategy():
            self._refresh()
        if not self._integers.acts:
            return super().call(inputs, training, mask)
        return self._integers.outputs(self, inputs)

    def _refresh(self) -> None:
        """Follow `finalized` and the weights: functions traced for other values are discarded."""
        if self._integers.follow(self):
            self.predict_function = self.test_function = None

    def make_test_function(self, force: bool = False) -> Any:
        self._refresh()
        if self.test_function is None or force:
            make = super().make_test_function
            self.test_function = TracedFunction(
                lambda: self._by_size(self._made("test_function", make))
            )
        return self.test_function

    def make_predict_function(self, force: bool = False) -> Any:
        self._refresh()
        if self.predict_function is None or force:
            make = super().make_predict_function
            self.predict_function = TracedFunction(
                lambda: self._by_size(self._made("predict_function", make))
            )
        return self.predict_function

    def _made(self, attribute: str, make: Callable[..., Any]) -> Any:
        """A new Keras function; `make` also assigns it to an attribute, which is restored."""
        before = getattr(self, attribute)
        function = make(force=True)
        setattr(self, attribute, before)
        return function

    def _by_size(self, function: Any) -> Any:
        """`function`, traced for each input size if the model leaves sizes open."""
        is_open = any(None in tensor.shape[1:] for tensor in self.inputs)
        return _compat.traced_for_each_shape(function) if is_open else function

    def make_train_function(self, force: bool = False) -> Any:
        if _compat.is_revived(self):
            raise ValueError(
                "Keras can only run a quantized model that it loads from a SavedModel folder, not "
                "train it. Load it with tfbinreg.load_model."
            )
        if self.finalized.numpy():
            warnings.warn(
                "Training ends what finalize did: inference no longer computes what the file does. "
                "Call finalize again when training is over.",
                QuantizationWarning,
                stacklevel=2,
            )
        if self.distillation is not None:
            self.distillation.check(self)
        self.finalized.assign(NOT_FINALIZED)
        self._is_trained = True
        if self.train_function is None or force:
            make = super().make_train_function
            self.train_function = TracedFunction(
                lambda: _compat.PreparedTrainFunction(self, self._made("train_function", make))
            )
        return self.train_function

    def save(self, *args: Any, **kwargs: Any) -> None:
        """As in tf_keras; saving a trained model that was not finalized issues a warning."""
        if self._is_trained and not self.finalized.numpy():
            warn_unfinalized("saved", stacklevel=3)
        super().save(*args, **kwargs)

    def train_step(self, data: Any) -> Any:
        if not self.updates and self.code_changes is None:
            return self._restrained_step(data)
        updates = WeightUpdates(
            kernel_sites(self),
            self.updates,
            rate=lambda: _compat.learning_rate(self.optimizer),
            curvature=functools.partial(curvature_of, self),
            progress=self.training_progress,
            changes=self.code_changes,
        )
        end = updates.begin()
        logs = self._restrained_step(data)
        end()
        self.training_progress.assign_add(self.progress_per_step)
        return logs

    def _restrained_step(self, data: Any) -> Any:
        ends = []
        if self.recipe.step_rate != 1.0:
            ends.append(slow_down(self.step_variables, self.recipe.step_rate))
        if self._can_hold_steps:
            ends.append(hold(self.step_variables, self.steps_held))
        logs = self._plain_step(data)
        for end in ends:
            end()
        return logs

    def _plain_step(self, data: Any) -> Any:
        if self.distillation is None:
            return super().train_step(data)
        return self.distillation.train_step(self, data)

    def reset_metrics(self) -> None:
        super().reset_metrics()
        if self.distillation is not None:
            self.distillation.mean.reset_state()

    fit = with_own_callbacks(takes_keras3_callbacks(_compat.Functional.fit))
    evaluate = takes_keras3_callbacks(_compat.Functional.evaluate)
    predict = takes_keras3_callbacks(_compat.Functional.predict)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        super().save_weights(filepath, *args, **kwargs)
        record_bits(filepath, self)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        check_bits(filepath, self)
        return super().load_weights(filepath, *args, **kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As in tf_keras; stock objects of Keras 3 are rebuilt as tf_keras' own (`to_tf_keras`)."""
        args, kwargs = to_tf_keras((args, kwargs), f"compile model {self.name!r}")
        super().compile(*args, **kwargs)
        _compat.spare_from_weight_decay(self.optimizer, self.step_variables)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """As Keras does for models that do not override `compile`; it skips those that do."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tfbinreg": quantization_config(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> QuantizedModel:
        plain = dict(config)
        quantization = plain.pop("tfbinreg")
        with shapes_only():
            model = super().from_config(plain, custom_objects)
        # Not model.made_from = ...: Keras would take it for a part of the model to be saved.
        object.__setattr__(model, "made_from", config)
        # Models of version 0.1.0 keep the names of their last layers.
        _compat.set_output_names(model, quantization.get("output_names", model.output_names))
        model.describe(saved_recipe(quantization))
        return model
