"""`QuantizedModel`: a functional model that carries its recipe and the bin regularization."""

from __future__ import annotations

import dataclasses
import json
import warnings
import zlib
from typing import Any

import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.recipe import Recipe
from tfbinreg.core.target import LITERT, NOT_FINALIZED, state_of
from tfbinreg.core.warning import QuantizationWarning, warn_unfinalized
from tfbinreg.deploy.deployed import Deployed
from tfbinreg.frontend.keras3_objects import takes_keras3_callbacks, to_tf_keras
from tfbinreg.layers.kernel import BoundLayer, QuantizedKernel
from tfbinreg.layers.sites import Site, kernel_sites, sites
from tfbinreg.methods.bin_regularization import bin_pulls
from tfbinreg.training.weight_files import check_bits, record_bits

keras = _compat.keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinOptions:
    """How the attached bin regularization is computed.

    Attributes:
        detach_step: whether the steps get no gradient from it (`bin_regularization`).
        scale_free: whether it is divided by the step squared (`bin_regularization`).
        bounded_pull: whether no strength can make a weight overshoot its level: the damping of
            `bin_regularization` follows the strength and the learning rate of the optimizer the
            model is compiled with. The factor of a folded normalization gets no gradient then, for
            it sums the pulls of a whole channel. False is the paper's formula.
    """

    detach_step: bool = True
    scale_free: bool = False
    bounded_pull: bool = True


@_compat.register
class QuantizedModel(_compat.Functional):
    """The model `quantize_apply` returns: a functional tf_keras model with three additions.

    tfmot's own `quantize_apply` returns one as well, given an `LSQQuantizeScheme`.

    - One `add_loss` callable over all quantized kernels adds bin_strength * L_BR. At strength zero
      (the start) it is skipped and training is plain LSQ, bit for bit. Keras counts it once, not
      once per replica, and it is attached again whenever the model is built from its config.
    - `compile` keeps the optimizer's decoupled weight decay away from the learned steps.
    - The recipe travels with the configuration.

    Attributes:
        bin_strength: float32 variable, the strength lambda; not trained, saved with the model.
        steps_held: int32 variable; 1 keeps the steps as they are while the weights train. It acts
            only after `enable_step_holding`.
        finalized: int32 variable; not 0 after `finalize`, when inference is what the file computes
            (`target.STATES`).
    """

    made_from: dict[str, Any]  # of a loaded model: the configuration
    recipe = Recipe()
    bin_options = BinOptions()
    _can_hold_steps = False
    _is_trained = False  # since it was built or loaded
    _deployed: Deployed | None = None
    _deployed_mark: int | None = None  # of the weights that `_deployed` was made from

    def __init__(
        self, inputs: Any, outputs: Any, name: Any = None, trainable: bool = True, **kwargs: Any
    ) -> None:
        # A functional model's own arguments, by which Keras knows that it can clone and save it.
        super().__init__(inputs, outputs, name, trainable, **kwargs)
        for layer in self.layers:
            if isinstance(layer, BoundLayer) and layer.source is not None:
                layer.bind(self.get_layer(layer.source))
            if isinstance(layer, QuantizedKernel) and layer.made_with is not None:
                self.recipe, self.bin_options = layer.made_with
        options: dict[str, Any] = {
            "trainable": False,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        self.bin_strength = tf.Variable(0.0, name="bin_strength", **options)
        self.steps_held = tf.Variable(0, name="steps_held", dtype=tf.int32, **options)
        self.finalized = tf.Variable(0, name="finalized", dtype=tf.int32, **options)
        self.add_loss(self.bin_loss)

    def describe(self, recipe: Recipe, bin_options: BinOptions) -> None:
        """Tell the model what it was made with, and every model that is cloned from its layers."""
        self.recipe, self.bin_options = recipe, bin_options
        for layer in self.layers:
            if isinstance(layer, QuantizedKernel):
                layer.remember(recipe, bin_options)

    @property
    def step_variables(self) -> list[tf.Variable]:
        """The learned steps and offsets of all kernels and activations; inputs have fixed ones."""
        return [variable for site in sites(self) for variable in site.learned]

    def bin_penalty(self) -> tf.Tensor:
        """L_BR summed over the quantized kernels, as in the paper, without the strength; float32
        scalar."""
        latents, steps = self._kernel_tensors()
        return self._bin_pulls(latents, steps, [0.0] * len(latents))[0]

    def bin_loss(self) -> tf.Tensor:
        """bin_strength * L_BR, 0 without computing anything while the strength is 0."""
        strength = tf.convert_to_tensor(self.bin_strength)
        dampings = self._dampings(strength)

        @tf.custom_gradient
        def loss(latents: list[tf.Tensor], steps: list[tf.Tensor]) -> Any:
            def nothing() -> tuple[tf.Tensor, list[tf.Tensor]]:
                return tf.constant(0.0), [tf.zeros(t.shape) for t in (*latents, *steps)]

            penalty, pulls = tf.cond(
                strength > 0.0, lambda: self._bin_pulls(latents, steps, dampings), nothing
            )

            def gradient(upstream: tf.Tensor) -> Any:
                factor = 2.0 * strength * upstream
                pulled = [factor * pull for pull in pulls]
                return pulled[: len(latents)], pulled[len(latents) :]

            return strength * penalty, gradient

        return loss(*self._kernel_tensors())

    def _dampings(self, strength: tf.Tensor) -> list[Any]:
        """What keeps each kernel's pull from overshooting: 0 of a model that is not compiled."""
        found = kernel_sites(self)
        optimizer = getattr(self, "optimizer", None)
        if optimizer is None or not self.bin_options.bounded_pull:
            return [0.0] * len(found)
        damping = 2.0 * strength * _compat.learning_rate(optimizer)
        if not self.bin_options.detach_step:
            damping *= 2.0  # the weights and the step share what may move at once
        with _compat.float32_variables():
            return [damping * _bin_weight(site) * site.layer.largest_slope() for site in found]

    def _kernel_tensors(self) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """The latent kernels and their steps, float32."""
        attached = not self.bin_options.bounded_pull
        with _compat.float32_variables():
            found = kernel_sites(self)
            return (
                [tf.convert_to_tensor(site.layer.latent(site.kernel, attached)) for site in found],
                [tf.convert_to_tensor(site.step) for site in found],
            )

    def _bin_pulls(
        self, latents: list[tf.Tensor], steps: list[tf.Tensor], dampings: list[Any]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """L_BR, and half its gradients for the kernels and then the steps."""
        options = self.bin_options
        penalties: list[tf.Tensor] = []
        to_latents: list[tf.Tensor] = []
        to_steps: list[tf.Tensor] = []
        found = zip(kernel_sites(self), latents, steps, dampings, strict=True)
        for site, latent, step, damping in found:
            quantizer, weight = site.quantizer, _bin_weight(site)
            penalty, pulls = bin_pulls(
                latent,
                step,
                quantizer.qmin,
                quantizer.qmax,
                quantizer.axis,
                detach_step=options.detach_step,
                scale_free=options.scale_free,
                damping=damping,
            )
            parts = [penalty, *pulls]
            if weight != 1.0:
                parts = [weight * part for part in parts]
            for collected, part in zip((penalties, to_latents, to_steps), parts, strict=True):
                collected.append(part)
        return tf.add_n(penalties), to_latents + to_steps

    def enable_step_holding(self) -> None:
        """Make the train step obey `steps_held`; traces it anew if it had been built without."""
        if not self._can_hold_steps:
            self._can_hold_steps = True
            self.train_function = None

    # False, not None, which Keras' augmentation layers take for training.
    def call(self, inputs: Any, training: Any = False, mask: Any = None) -> Any:
        if tf.is_tensor(training) or training:
            return super().call(inputs, training, mask)
        if tf.distribute.in_cross_replica_context() or not tf.distribute.has_strategy():
            self._refresh()
        if self._deployed is None:
            return super().call(inputs, training, mask)
        flat = self._flatten_to_reference_inputs(inputs)
        if any(None in tensor.shape[1:] for tensor in flat):
            raise ValueError(
                "A finalized model whose inputs have open sizes computes batches of a known size "
                f"only, got {', '.join(str(tuple(tensor.shape)) for tensor in flat)}: give arrays, "
                "set the shape of the dataset's elements, or save the model as .keras or .h5."
            )
        outputs = self._deployed(flat)
        return tf.nest.pack_sequence_as(self._nested_outputs, outputs)

    def _refresh(self) -> None:
        """Follow `finalized` and the weights: what was traced for others is of no use any more."""
        with tf.init_scope():
            mark = None
            if state_of(self) != NOT_FINALIZED:
                mark = state_of(self)
                for weight in self.weights:
                    mark = zlib.crc32(weight.numpy().tobytes(), mark)
            if mark != self._deployed_mark:
                self._deployed = None if mark is None else Deployed(self)
                self._deployed_mark = mark
                self.predict_function = self.test_function = None

    def make_test_function(self, force: bool = False) -> Any:
        self._refresh()
        if self.test_function is None or force:
            self.test_function = self._by_size(super().make_test_function(force))
        return self.test_function

    def make_predict_function(self, force: bool = False) -> Any:
        self._refresh()
        if self.predict_function is None or force:
            self.predict_function = self._by_size(super().make_predict_function(force))
        return self.predict_function

    def _by_size(self, function: Any) -> Any:
        """`function`, traced for each size of the inputs if the model leaves sizes open."""
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
        self.finalized.assign(NOT_FINALIZED)
        self._is_trained = True
        if self.train_function is None or force:
            function: Any = super().make_train_function(force)
            function = _compat.PreparedTrainFunction(self, function)
            self.train_function = function
        return self.train_function

    def save(self, *args: Any, **kwargs: Any) -> None:
        """As in tf_keras; a model that was trained and not finalized is saved with a warning."""
        if self._is_trained and not self.finalized.numpy():
            warn_unfinalized("saved", stacklevel=3)
        super().save(*args, **kwargs)

    def train_step(self, data: Any) -> Any:
        if not self._can_hold_steps:
            return super().train_step(data)
        steps = self.step_variables
        before = [tf.identity(step) for step in steps]
        logs = super().train_step(data)
        # A zero gradient would not do: momentum would go on moving the steps.
        for step, value in zip(steps, before, strict=True):
            step.assign(tf.where(self.steps_held > 0, value, step))
        return logs

    fit = takes_keras3_callbacks(_compat.Functional.fit)
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
        optimizer: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not getattr(optimizer, "weight_decay", None):
            return
        # Keras forgets what was excluded before when it is told again.
        names = getattr(optimizer, "_exclude_from_weight_decay_names", None)
        try:
            optimizer.exclude_from_weight_decay(var_list=self.step_variables, var_names=names)
        except ValueError:
            raise ValueError(
                "The optimizer has been used before, so its weight decay can no longer be kept "
                "away from the learned steps. Compile with a new optimizer."
            ) from None

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """As Keras does it for models that leave `compile` alone; it skips those that do not."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        quantization = {
            "recipe": self.recipe.to_json(),
            "bin_options": dataclasses.asdict(self.bin_options),
            "output_names": list(self.output_names),
        }
        return {**super().get_config(), "tfbinreg": quantization}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> QuantizedModel:
        plain = dict(config)
        quantization = plain.pop("tfbinreg")
        model = super().from_config(plain, custom_objects)
        # Not model.made_from = ...: Keras would take it for a part of the model to be saved.
        object.__setattr__(model, "made_from", config)
        # Models of version 0.1.0 keep the names of their last layers, and the paper's formula.
        _compat.set_output_names(model, quantization.get("output_names", model.output_names))
        options = {"bounded_pull": False, **quantization["bin_options"]}
        # And their recipes no target: LiteRT was the only one.
        recipe = json.dumps({"target": LITERT, **json.loads(quantization["recipe"])})
        model.describe(Recipe.from_json(recipe), BinOptions(**options))
        return model


def _bin_weight(site: Site) -> float:
    """The factor of a kernel's part in the bin regularization."""
    weight = site.layer.quantize_config.settings.bin_weight
    return 1.0 if weight is None else weight
