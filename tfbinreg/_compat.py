"""The one place that decides which Keras and which tfmot names the package uses.

`tf.keras` is Keras 3 on TensorFlow >= 2.16 while tfmot speaks Keras 2, so every other module takes
`keras` from here and nobody has to set TF_USE_LEGACY_KERAS.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

try:
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras
    from tensorflow_model_optimization.python.core.quantization.keras import quantize_annotate
    from tf_keras.src.engine import functional
    from tf_keras.src.mixed_precision import autocast_variable
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"tfbinreg needs TensorFlow, tf_keras and tfmot ({error}): pip install tfbinreg, '.' in a "
        "clone. Without them tflite_tools reads .tflite files.",
        name=error.name,
    ) from error

tfmot_keras = tfmot.quantization.keras

Functional = functional.Functional

Quantizer = tfmot_keras.quantizers.Quantizer
QuantizeConfig = tfmot_keras.QuantizeConfig
QuantizeRegistry = tfmot_keras.QuantizeRegistry
QuantizeLayoutTransform = tfmot_keras.QuantizeLayoutTransform
QuantizeScheme = tfmot_keras.QuantizeScheme
QuantizeWrapper = tfmot_keras.QuantizeWrapper
QuantizeAnnotate = quantize_annotate.QuantizeAnnotate

# Our layers use tf.cond where the graph decides; converting their code only makes tracing slow.
without_autograph = tf.autograph.experimental.do_not_convert

REGISTERED: dict[str, type] = {}  # what `register` has seen, by name


def register(cls: Any) -> Any:
    """Let Keras save and load a class of this package, wherever its module lies."""
    REGISTERED[cls.__name__] = cls
    return keras.utils.register_keras_serializable(package="tfbinreg")(cls)


def is_graph_network(model: object) -> bool:
    """Whether `model` is a Sequential or Functional tf_keras model with a known layer graph."""
    return isinstance(model, keras.Model) and bool(getattr(model, "_is_graph_network", False))


def reference_inputs(model: Any, inputs: Any) -> list[Any]:
    """A batch of inputs of a functional model as a list in the model's order."""
    return model._flatten_to_reference_inputs(inputs)


def graph_inputs(model: Any, inputs: Any) -> list[Any]:
    """The same, of the types of the model's inputs."""
    pairs = zip(reference_inputs(model, inputs), model.inputs, strict=True)
    return [model._conform_to_reference_input(tensor, own) for tensor, own in pairs]


def set_output_names(model: Any, names: Sequence[str]) -> None:
    """What losses, metrics, targets and logs call the outputs of `model`."""
    # Not model.output_names = ...: Keras would take the list for a part of the model to be saved.
    object.__setattr__(model, "output_names", list(names))


def is_revived(model: object) -> bool:
    """Whether Keras itself has loaded `model` from a SavedModel folder."""
    return hasattr(model, "_serialized_attributes")


def own_scope(layer: Any) -> contextlib.AbstractContextManager:
    """The scope named after `layer`: Keras opens none when it builds a layer from a config, and
    HDF5 needs the optimizer's variables, named after the weights, to have different names."""
    return tf.name_scope(f"{layer.name}/")


def set_grouped_convolution(layer: Any, function: Any) -> None:
    """Compute the convolution of a layer with groups by `function(inputs, kernel)`."""
    layer._jit_compiled_convolution_op = function


def autocast(layer: Any) -> Any:
    """Scope in which a layer of tf_keras computes with its variables in its compute type, as when
    it is called."""
    return autocast_variable.enable_auto_cast_variables(layer._compute_dtype_object)


@contextlib.contextmanager
def uncompiled_convolution(layer: Any) -> Iterator[None]:
    """Scope in which a convolution with groups can be called on symbolic tensors: Keras compiles
    it."""
    if not hasattr(layer, "_jit_compiled_convolution_op"):
        yield
        return
    own = vars(layer).get("_jit_compiled_convolution_op")
    set_grouped_convolution(layer, layer.convolution_op)
    try:
        yield
    finally:
        if own is None:
            del layer._jit_compiled_convolution_op
        else:
            set_grouped_convolution(layer, own)


@contextlib.contextmanager
def dtype_policy(layer: Any) -> Iterator[None]:
    """Scope in which new layers compute in the types of `layer`, a layer or model of either Keras;
    None leaves them alone."""
    before = keras.mixed_precision.global_policy()
    policy = getattr(layer, "dtype_policy", None) or before
    keras.mixed_precision.set_global_policy(policy.name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def pack_outputs(model: Any, flat: Sequence[Any]) -> Any:
    """A functional model's outputs in the form in which it returns them."""
    return tf.nest.pack_sequence_as(model._nested_outputs, flat)


class PreparedTrainFunction:
    """Keras' train function, with the optimizer's slots and the metrics created before its trace.

    Keras creates them inside, and TensorFlow then traces the whole train step a second time, which
    doubles the time to the first batch. Left to Keras under a tf.distribute strategy.
    """

    def __init__(self, model: Any, function: Any) -> None:
        self._model, self._function, self._is_ready = model, function, False

    def __call__(self, iterator: Any) -> Any:
        if not self._is_ready:
            self._prepare(getattr(iterator, "element_spec", None))
            self._is_ready = True
        return self._function(iterator)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    def _prepare(self, batch: Any) -> None:
        model = self._model
        optimizer: Any = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        if tf.distribute.has_strategy() or not hasattr(optimizer, "build") or batch is None:
            return
        optimizer.build(model.trainable_variables)
        _, targets, _ = keras.utils.unpack_x_y_sample_weight(batch)
        metrics = model.compiled_metrics
        if targets is not None and not metrics.built:
            metrics.build(model.output, metrics._conform_to_outputs(model.output, targets))


class PerShape:
    """A function of a batch of tensors, traced once for each shape of a sample.

    Not called as a tf.function, which TensorFlow would blame for being made anew for every model.
    """

    def __init__(self, function: Any) -> None:
        self._function = tf.function(function)
        self._traced: dict[Any, Any] = {}

    def __call__(self, batch: Any) -> Any:
        tensors = tf.nest.map_structure(tf.convert_to_tensor, batch)
        specs = tf.nest.map_structure(
            lambda tensor: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype), tensors
        )
        key = tuple(tf.nest.flatten(specs))
        if key not in self._traced:
            self._traced[key] = self._function.get_concrete_function(specs)
        return self._traced[key](tensors)


def learning_rate(optimizer: Any, step: Any = None) -> tf.Tensor:
    """The rate of the optimizer's next step, or of the step of a number; float32 scalar."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    step = optimizer.iterations if step is None else step
    rate, decay = _rate(optimizer)
    is_legacy = isinstance(optimizer, keras.optimizers.legacy.Optimizer)
    step = tf.cast(step, tf.float32) if is_legacy else step
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(step)
    rate = tf.cast(rate, tf.float32)
    return rate / (1.0 + decay * step) if decay > 0.0 else rate


def _rate(optimizer: Any) -> tuple[Any, float]:
    """An optimizer's rate or schedule of rates, and how it decays on its own besides."""
    if isinstance(optimizer, keras.optimizers.legacy.Optimizer):
        return optimizer._get_hyper("learning_rate"), optimizer._initial_decay
    return optimizer._learning_rate, 0.0  # the property would tell the rate of the step before


def has_rate_schedule(optimizer: Any) -> bool:
    """Whether the rate is a function of the step."""
    rate, decay = _rate(getattr(optimizer, "inner_optimizer", optimizer))
    return isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) or decay > 0.0


def needs_steps(optimizer: Any) -> bool:
    """Whether steps are divided by the size of the gradients before, as Adam's are."""
    kinds, legacy = keras.optimizers, keras.optimizers.legacy
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return isinstance(optimizer, (kinds.Adam, kinds.AdamW, legacy.Adam))


def step_of_gradient(
    optimizer: Any, variable: tf.Variable, trained: Sequence[tf.Variable]
) -> float | None:
    """How far a lasting gradient of 1 moves one of the trained variables in a step, over the rate.

    SGD: 1 / (1 - momentum). Adam and AdamW: 1 / (sqrt(v) + epsilon), without bias, with the mean v
    of the variable: v is 0 for a number that has had no gradient, as clipped weights have none.
    None if it needs steps to tell, and has made none yet.

    Raises:
        ValueError: of another optimizer.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    legacy = keras.optimizers.legacy
    is_legacy = isinstance(optimizer, legacy.Optimizer)

    def value(name: str) -> float:
        return float(optimizer._get_hyper(name) if is_legacy else getattr(optimizer, name))

    if isinstance(optimizer, (keras.optimizers.SGD, legacy.SGD)):
        return 1.0 / (1.0 - value("momentum"))
    if not needs_steps(optimizer):
        raise ValueError(
            f"The pull of a penalty is known for SGD, Adam and AdamW, not for "
            f"{type(optimizer).__name__}."
        )
    steps = int(optimizer.iterations.numpy())
    if steps == 0:
        return None
    if is_legacy:
        optimizer._create_all_weights(trained)
    else:
        optimizer.build(trained)  # also after steps: one that is restored has no slots yet
    unbiased = 1.0 - value("beta_2") ** steps
    mean = float(tf.reduce_mean(_mean_squares(optimizer, variable)))
    return unbiased**0.5 / (mean**0.5 + float(optimizer.epsilon))


def _mean_squares(optimizer: Any, variable: tf.Variable) -> tf.Variable:
    """Adam's mean of the squared gradients of a variable; with AMSGrad the largest so far."""
    if isinstance(optimizer, keras.optimizers.legacy.Optimizer):
        return optimizer.get_slot(variable, "vhat" if optimizer.amsgrad else "v")
    slots = optimizer._velocity_hats if optimizer.amsgrad else optimizer._velocities
    return slots[optimizer._index_dict[optimizer._var_key(variable)]]


def curvature(optimizer: Any, variable: tf.Variable, who: str) -> tf.Tensor:
    """The square root of the mean squared gradients of a variable after a step, without bias, in
    its shape: what Adam divides by. Zeros before the first step.

    Raises:
        ValueError: of an optimizer that is no Adam, saying `who` needs one.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not needs_steps(optimizer):
        raise ValueError(
            f"{who} needs mean squares of gradients, which Adam and AdamW keep: compile with one "
            f"of them, {type(optimizer).__name__} keeps none."
        )
    is_legacy = isinstance(optimizer, keras.optimizers.legacy.Optimizer)
    if not (optimizer.weights if is_legacy else getattr(optimizer, "_built", False)):
        return tf.zeros(variable.shape)
    decay = optimizer._get_hyper("beta_2") if is_legacy else optimizer.beta_2
    steps = tf.cast(optimizer.iterations, tf.float32)
    unbiased = 1.0 - tf.cast(decay, tf.float32) ** steps
    return tf.sqrt(tf.math.divide_no_nan(_mean_squares(optimizer, variable), unbiased))


def output_losses(model: Any) -> list[Any]:
    """The loss that `compile` gave each output, a `keras.losses.Loss`; None for none."""
    container = model.compiled_loss
    losses = container._maybe_broadcast_to_outputs(model.output, container._user_losses)
    return [container._get_loss_object(loss) for loss in per_output(model, model.output, losses)]


def loss_weights(model: Any) -> list[float]:
    """The factor that `compile` gave the loss of each output."""
    given = model.compiled_loss._user_loss_weights
    weights = per_output(model, model.output, given)
    return [1.0 if weight is None else weight for weight in weights]


def per_output(model: Any, outputs: Any, values: Any) -> list[Any]:
    """What `values`, in a form that Keras takes, say of each of the `outputs`; None for nothing."""
    return tf.nest.flatten(model.compiled_loss._conform_to_outputs(outputs, values))


def steps_of_fit(model: Any) -> int:
    """How many train steps `fit` has done so far. An optimizer's own count may be one too high
    after the first epoch of a dataset of unknown size, whose end its last step runs into."""
    return int(model._train_counter.numpy())


def assign(variable: Any, value: tf.Tensor) -> None:
    """Assign to a trained variable inside a train step, also where it is mirrored on replicas.

    Args:
        variable: mirrored or not.
        value: the same on all replicas.
    """
    if not tf.distribute.has_strategy():
        variable.assign(value)
        return

    def on_all(strategy: Any, values: Any) -> None:
        strategy.extended.update(variable, lambda own, new: own.assign(new), args=(values,))

    tf.distribute.get_replica_context().merge_call(on_all, args=(value,))


def compile_arguments(model: Any) -> dict[str, Any]:
    """What a compiled model was given by `compile`, for another model: a new optimizer with the
    same settings, without state, and new metrics."""

    def anew(metric: Any) -> Any:
        is_object = isinstance(metric, keras.metrics.Metric)
        return type(metric).from_config(metric.get_config()) if is_object else metric

    given = dict(model._compile_config.config)
    for name in ("metrics", "weighted_metrics"):
        given[name] = tf.nest.map_structure(anew, given[name])
    return {**given, "optimizer": _same_optimizer(model.optimizer)}


def _same_optimizer(optimizer: Any) -> Any:
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:
        return keras.mixed_precision.LossScaleOptimizer(
            _same_optimizer(inner),
            dynamic=optimizer.dynamic,
            initial_scale=float(optimizer.loss_scale),
            dynamic_growth_steps=optimizer.dynamic_growth_steps,
        )
    config = optimizer.get_config()
    rate = getattr(optimizer, "_learning_rate", None)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        config["learning_rate"] = rate  # it may be of a class that Keras does not know by name
    return type(optimizer).from_config(config)


def continue_optimizer(new: Any, old: Any, anew: Sequence[tf.Variable]) -> None:
    """Give the optimizer of a model the state of that of another.

    Slots of variables with the same name and shape go on, but for those `anew`.

    Args:
        new: a compiled model that was not trained.
        old: a compiled model whose variables have the same names.
        anew: variables of `new` whose slots start at 0.
    """
    own, former = (
        getattr(model.optimizer, "inner_optimizer", model.optimizer) for model in (new, old)
    )
    fresh = {variable.name for variable in anew}
    if isinstance(own, keras.optimizers.legacy.Optimizer):
        if former.weights:
            _continue_legacy(own, former, new, old, fresh)
        return
    if not getattr(former, "_built", False):
        return
    own.build(new.trainable_variables)
    states = _slots(former, old)
    for key, variable in _slots(own, new).items():
        state = states.get(key)
        if state is not None and state.shape == variable.shape and key[1] not in fresh:
            variable.assign(state)


def _slots(optimizer: Any, model: Any) -> dict[tuple[str, str], tf.Variable]:
    """The variables of an optimizer by what they are and of which variable of the model, "" for
    none. Keras calls them "m/conv/kernel:0", or "Adam/m/conv/kernel:0" if a graph has made them."""
    names = [variable.name for variable in model.trainable_variables]
    found = {}
    for slot in optimizer.variables:
        of = max((name for name in names if slot.name.endswith(f"/{name}")), key=len, default="")
        what = slot.name.removesuffix(of).rstrip("/").rpartition("/")[2]
        found[what, of] = slot
    return found


def restart_slots(model: Any, variables: Sequence[tf.Variable], mean_squares: bool = True) -> None:
    """Let what a model's optimizer keeps of some variables start at zero; without `mean_squares`,
    what Adam divides by stays. Of variables in frozen layers it keeps nothing."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    trained = {variable.name for variable in model.trainable_variables}
    variables = [variable for variable in variables if variable.name in trained]
    slots: list[tf.Variable] = []
    kept = () if mean_squares else ("v", "vhat")
    if isinstance(optimizer, keras.optimizers.legacy.Optimizer):
        kinds = [kind for kind in optimizer.get_slot_names() if kind not in kept]
        if optimizer.weights:
            slots = [optimizer.get_slot(own, kind) for own in variables for kind in kinds]
    elif getattr(optimizer, "_built", False):
        names = {variable.name for variable in variables}
        slots = [
            slot
            for (kind, of), slot in _slots(optimizer, model).items()
            if of in names and kind not in kept
        ]
    for slot in slots:
        slot.assign(tf.zeros_like(slot))


def _continue_legacy(own: Any, former: Any, new: Any, old: Any, fresh: set[str]) -> None:
    own._create_all_weights(new.trainable_variables)
    own.iterations.assign(former.iterations)
    before = {variable.name: variable for variable in old.trainable_variables}
    for variable in new.trainable_variables:
        source = before.get(variable.name)
        if source is not None and source.shape == variable.shape and variable.name not in fresh:
            for name in own.get_slot_names():
                own.get_slot(variable, name).assign(former.get_slot(source, name))


def spare_from_weight_decay(optimizer: Any, variables: Sequence[tf.Variable]) -> None:
    """Keep an optimizer's decoupled weight decay, if it has one, away from variables.

    Raises:
        ValueError: if the optimizer has been used before.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not getattr(optimizer, "weight_decay", None):
        return
    # Keras forgets what was excluded before when it is told again.
    names = getattr(optimizer, "_exclude_from_weight_decay_names", None)
    try:
        optimizer.exclude_from_weight_decay(var_list=variables, var_names=names)
    except ValueError:
        raise ValueError(
            "The optimizer has been used before, so its weight decay can no longer be kept "
            "away from the learned steps. Compile with a new optimizer."
        ) from None


def traced_for_each_shape(function: Any) -> Any:
    """A tf.function of Keras' that is not traced for unknown sizes after two different ones."""
    python_function = getattr(function, "python_function", None)  # None if run eagerly
    return function if python_function is None else tf.function(python_function)


def versions() -> dict[str, str]:
    """Versions of the libraries that decide how a model is trained and converted."""
    return {
        "tensorflow": tf.__version__,
        "tf_keras": keras.__version__,
        "tensorflow_model_optimization": tfmot.__version__,
    }


def float32_variables() -> contextlib.AbstractContextManager:
    """Scope in which a mixed-precision policy does not round variables to 16 bits when read."""
    return autocast_variable.enable_auto_cast_variables(None)
