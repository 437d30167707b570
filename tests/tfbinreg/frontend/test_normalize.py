import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfbinreg.frontend import layer_rules
from tfbinreg.frontend.normalize import normalize

layers = keras.layers


def randomize(model):
    """Weights everywhere, biases too; variances stay positive."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([random.uniform(0.1, 1, w.shape) * 0.3 for w in layer.get_weights()])


def chain(*middle):
    model = keras.Sequential([layers.Input((8, 8, 3), name="image"), *middle], name="net")
    randomize(model)
    return model


def kinds(model):
    return [type(layer).__name__ for layer in model.layers][1:]


def check_equal(model, images):
    normal, origin = normalize(model)
    np.testing.assert_allclose(normal(images), model(images), rtol=1e-5, atol=1e-5)
    assert set(origin) == {layer.name for layer in normal.layers}
    known = {"image"} | {layer.name for layer in model.layers}
    assert set(origin.values()) <= known
    assert normal.name == model.name
    return normal, origin


@pytest.mark.parametrize(("activation", "kind"), [("relu", "ReLU"), ("softmax", "Softmax")])
@pytest.mark.parametrize(
    "make",
    [
        lambda **options: layers.Conv2D(4, 3, strides=2, padding="same", **options),
        lambda **options: layers.DepthwiseConv2D(3, depth_multiplier=2, **options),
        lambda **options: layers.Conv2DTranspose(5, 3, **options),
    ],
    ids=["Conv2D", "DepthwiseConv2D", "Conv2DTranspose"],
)
def test_activation_becomes_a_layer(make, activation, kind, images):
    layer = make(activation=activation, name="own")
    normal, origin = check_equal(chain(layer), images[:4])
    assert kinds(normal) == [type(layer).__name__, kind]
    assert origin[f"own_{activation}"] == origin["own"] == "own"
    assert normal.get_layer("own").activation is keras.activations.linear


def test_equal_relus_of_one_tensor_become_one(images):
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(image)
    one, two, other = layers.ReLU()(x), layers.ReLU()(x), layers.ReLU(6.0)(x)
    model = keras.Model(image, layers.Concatenate()([one, two, other]))
    randomize(model)
    normal, _ = check_equal(model, images[:4])
    assert kinds(normal).count("ReLU") == 2


def test_relu6_keeps_its_limit(images):
    normal, _ = check_equal(chain(layers.Conv2D(4, 3, activation="relu6")), 9 * images[:4])
    assert normal.layers[-1].max_value == 6
    assert np.max(normal(9 * images[:4])) == 6


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_separable_convolution_is_split(bias, strides, activation, images):
    options = {"use_bias": bias, "strides": strides, "activation": activation}
    model = chain(
        layers.SeparableConv2D(5, 3, depth_multiplier=2, padding="same", name="sep", **options)
    )
    normal, origin = check_equal(model, images[:4])
    assert kinds(normal)[:2] == ["DepthwiseConv2D", "Conv2D"]
    assert origin["sep_depthwise"] == origin["sep_pointwise"] == "sep"
    assert ("sep_relu" in origin) == (activation == "relu")


def test_activation_layers_become_their_kind_and_linear_ones_vanish(images):
    model = chain(
        layers.Conv2D(4, 3),
        layers.Activation("relu", name="act"),
        layers.Activation("linear", name="nothing"),
        layers.Flatten(),
    )
    normal, origin = check_equal(model, images[:4])
    assert kinds(normal) == ["Conv2D", "ReLU", "Flatten"]
    assert origin["act"] == "act"
    assert "nothing" not in origin


def test_pooling_over_the_whole_image_is_global(images):
    normal, _ = check_equal(chain(layers.AveragePooling2D(8), layers.Flatten()), images[:4])
    assert kinds(normal) == ["GlobalAveragePooling2D", "Flatten"]
    assert normal.layers[1].keepdims
    normal, _ = check_equal(chain(layers.AveragePooling2D(4)), images[:4])
    assert kinds(normal) == ["AveragePooling2D"]


def test_other_layers_are_kept_with_their_weights(float_net, images):
    normal, origin = check_equal(float_net, images[:4])
    for layer in normal.layers:
        source = float_net.get_layer(origin[layer.name])
        assert layer is not source
        if type(layer) is type(source):
            for ours, theirs in zip(layer.get_weights(), source.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_part_names_do_not_collide(images):
    model = chain(
        layers.Conv2D(4, 1, activation="relu", name="a"),
        layers.Conv2D(4, 1, name="a_relu"),
        layers.Conv2D(4, 1, activation="relu", name="a_"),
    )
    _, origin = check_equal(model, images[:4])
    assert origin["a_relu_"] == "a"
    assert origin["a_relu"] == "a_relu"
    assert origin["a__relu"] == "a_"


def test_frozen_layers_stay_frozen_in_all_parts():
    model = chain(layers.SeparableConv2D(4, 3, name="frozen"), layers.Conv2D(4, 3, name="learning"))
    model.get_layer("frozen").trainable = False
    normal, _ = normalize(model)
    assert {layer.name for layer in normal.layers if not layer.trainable} == {
        "frozen_depthwise",
        "frozen_pointwise",
    }


def test_the_model_itself_is_left_alone(images):
    model = chain(layers.SeparableConv2D(4, 3, activation="relu"), layers.Flatten())
    before = model.get_weights(), model.get_config(), [len(x._inbound_nodes) for x in model.layers]
    normal, _ = normalize(model)
    normal.set_weights([0 * weight for weight in normal.get_weights()])
    for now, then in zip(model.get_weights(), before[0], strict=True):
        np.testing.assert_array_equal(now, then)
    assert model.get_config() == before[1]
    assert [len(layer._inbound_nodes) for layer in model.layers] == before[2]


def listed(model):
    """What the error lists as not supported."""
    with pytest.raises(ValueError) as caught:
        normalize(model)
    lines = str(caught.value).splitlines()[1:]
    return [line.removeprefix("  - ") for line in lines if line.startswith("  - ")]


class TestProblems:
    def test_all_unsupported_layers_are_named_with_remedies(self):
        model = chain(
            layers.Conv2D(4, 1, name="conv"),
            layers.LayerNormalization(name="norm"),
            layers.UpSampling2D(interpolation="bicubic", name="up"),
        )
        norm, up = listed(model)
        assert norm.startswith("norm: layer class LayerNormalization is not supported; take Batch")
        assert "tfbinreg.register_layer" in norm
        assert up.startswith("up: interpolation 'bicubic'; use 'nearest', 'bilinear'")

    def test_own_class_with_a_known_name_is_not_taken_for_it(self):
        dense = type("Dense", (layers.Layer,), {"call": lambda self, inputs: inputs / inputs})
        (problem,) = listed(chain(dense(name="mine")))
        assert problem.startswith("mine: division by a tensor")

    def test_settings_of_layers_are_checked(self):
        model = chain(
            layers.Conv2D(4, 1, activation="log_softmax", name="conv"),
            layers.ReLU(threshold=1, name="r"),
        )
        what = "operation tf.compat.v1.nn.log_softmax is not supported in activation 'log_softmax'"
        found = [problem.split(";")[0] for problem in listed(model)]
        assert found == [f"conv: {what}", "r: threshold"]

    def test_layers_with_the_same_problem_share_a_line(self):
        norms = [layers.LayerNormalization(name=f"norm{index}") for index in range(30)]
        (problem,) = listed(chain(layers.Conv2D(4, 1), *norms))
        assert problem.startswith("norm0, norm1, ")
        assert "norm19 and 10 more: layer class LayerNormalization" in problem

    def test_lists_of_a_layer_are_shown_as_lists(self):
        (problem,) = listed(chain(layers.PReLU(shared_axes=[1], name="slopes")))
        assert problem.startswith("slopes: shared_axes=[1];")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_not_finite(self, value):
        model = chain(layers.Conv2D(4, 1, name="conv"), layers.BatchNormalization(name="bn"))
        kernel, bias = model.get_layer("conv").get_weights()
        kernel[0, 0, 0, 1] = value
        model.get_layer("conv").set_weights([kernel, bias])
        model.get_layer("bn").gamma.assign(np.full(4, value))
        conv, norm = listed(model)
        assert conv == "conv: kernel has NaN or infinite values; train or load it again"
        assert norm == "bn: gamma has NaN or infinite values; train or load it again"

    def test_a_kernel_of_zeros(self):
        model = chain(layers.SeparableConv2D(4, 1, name="sep"), layers.Conv2D(4, 1, name="conv"))
        model.set_weights([0 * weight for weight in model.get_weights()])
        remedy = "is all zeros; train it first, or remove the layer"
        assert listed(model) == [
            f"sep: depthwise_kernel {remedy}",
            f"sep: pointwise_kernel {remedy}",
            f"conv: kernel {remedy}",
        ]

    def test_a_constant_kernel_is_fine(self):
        model = keras.Sequential([layers.Conv2D(4, 1, kernel_initializer="ones")])
        model.build((None, 8, 8, 3))
        normalize(model)

    def test_sizes_that_are_not_known(self):
        image = keras.Input((None, None, 3))
        x = layers.Conv2D(4, 1)(image)
        x = layers.GlobalAveragePooling2D(keepdims=True)(x)
        normalize(keras.Model(image, layers.Flatten()(x)))  # needs none
        rows = keras.Input((None, 3), name="rows")
        normalize(keras.Model(rows, layers.Conv1D(4, 3, name="conv")(rows)))  # one is worked out
        keras.backend.reset_uids()  # or the operation has a number where others came before it
        rows = keras.Input((None, None, 3), name="rows")
        (problem,) = listed(keras.Model(rows, tf.expand_dims(layers.Dense(4)(rows), 1)))
        assert problem.startswith("tf.expand_dims: unknown sizes in (None, 1, None, None, 4)")

    def test_outputs_that_are_not_finite_are_said_to_be_so(self):
        model = chain(layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="norm"))
        model.get_layer("norm").moving_variance.assign([1.0, 1.0, -1.0, 1.0])
        with pytest.raises(ValueError, match=r"is not finite .* a negative variance"):
            normalize(model)

    def test_a_rewrite_that_computes_something_else_is_noticed(self, monkeypatch):
        model = chain(layers.Conv2D(4, 3, name="conv"), layers.ReLU())
        wrong = {**layer_rules.LAYERS, "ReLU": lambda build, step, values: values[0]}
        monkeypatch.setattr("tfbinreg.frontend.normalize.LAYERS", wrong)
        with pytest.raises(ValueError, match="could not be rewritten exactly: it is off by"):
            normalize(model)


def test_types_of_the_layers_are_kept(images):
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = chain(
            layers.SeparableConv2D(4, 3, activation="swish", name="sep"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
            layers.Activation("softmax", dtype="float32", name="soft"),
        )
    finally:
        keras.mixed_precision.set_global_policy(policy)
    normal, origin = normalize(model)
    types = {layer.name: layer.compute_dtype for layer in normal.layers}
    assert types["soft"] == "float32"
    assert {types[name] for name, source in origin.items() if source == "sep"} == {"float16"}
    assert keras.mixed_precision.global_policy() is policy


@pytest.mark.parametrize("own", [keras, keras_3], ids=["tf_keras", "Keras 3"])
@pytest.mark.parametrize(
    "make",
    [
        lambda own: own.Bidirectional(own.LSTM(4), name="it"),
        lambda own: own.GRU(4, return_sequences=True, name="it"),
        lambda own: own.LayerNormalization(name="it"),
        lambda own: own.ConvLSTM1D(4, 1, name="it"),
        lambda own: type("QDense", (own.Dense,), {"__module__": "qkeras.qlayers"})(4, name="it"),
    ],
    ids=["Bidirectional", "GRU", "LayerNormalization", "ConvLSTM1D", "QDense"],
)
def test_foreign_layers_are_refused_by_name_in_a_sentence(make, own):
    layer = make(own.layers)
    shape = (4, 5, 6) if "ConvLSTM" in type(layer).__name__ else (5, 6)
    with pytest.raises(ValueError) as caught:
        normalize(own.Sequential([own.Input(shape), layer]))
    (problem,) = str(caught.value).splitlines()[1:]
    assert problem.startswith(f"  - it: layer class {type(layer).__name__} is ")
    assert len(problem) < 300
    assert ("QKeras" in problem) == ("QDense" in problem)


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method")
def test_keras_3s_own_quantized_layers():
    model = keras_3.Sequential([keras_3.Input((6,)), keras_3.layers.Dense(4, name="dense")])
    model.quantize("int8")
    with pytest.raises(ValueError, match="dense: layer class Dense is quantized by Keras already"):
        normalize(model)


def test_parts_of_a_keras_3_layer_that_tf_keras_lacks():
    class Mine(keras_3.regularizers.Regularizer):
        def __call__(self, x):
            return keras_3.ops.sum(x)

        def get_config(self):
            return {}

    layer = keras_3.layers.Dense(4, kernel_regularizer=Mine(), name="dense")
    with pytest.raises(ValueError, match="dense: kernel_regularizer Mine cannot be rebuilt"):
        normalize(keras_3.Sequential([keras_3.Input((6,)), layer]))


def test_regularizers_of_ones_own_are_kept():
    class Mine(keras.regularizers.Regularizer):
        def __call__(self, x):
            return 2.0 * keras.backend.sum(x)

        def get_config(self):
            return {}

    rule = Mine()
    normal, _ = normalize(chain(layers.Conv2D(4, 3, kernel_regularizer=rule, name="conv")))
    assert normal.get_layer("conv").kernel_regularizer is rule
