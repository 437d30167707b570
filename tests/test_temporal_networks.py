"""Temporal convolutional networks as packages write them (keras-tcn): a layer of residual blocks of
causal dilated convolutions, of which one row may be sliced. Exact in both runtimes and in C."""

import keras as keras_3
import numpy as np
import pytest
import tf_keras
from exactness import assert_exact
from quick import slow

import tfbinreg
from tflite_tools.c import generate, host_run, stream_run
from tflite_tools.running import runtime

KERASES = {"tf_keras": tf_keras, "keras": keras_3}
FRAMES = 20


def temporal_layer(keras, **options):
    """A layer like keras-tcn's TCN, of either Keras."""
    layers = keras.layers

    class Block(layers.Layer):
        def __init__(self, filters, dilation, name):
            super().__init__(name=name)
            self.parts = []
            for number in range(2):
                conv = layers.Conv1D(
                    filters, 3, padding="causal", dilation_rate=dilation, name=f"conv{number}"
                )
                norm = layers.BatchNormalization(name=f"norm{number}")
                relu, drop = layers.Activation("relu"), layers.SpatialDropout1D(0.1)
                self.parts += [conv, norm, relu, drop]
            self.matching = layers.Conv1D(filters, 1, padding="same", name="matching")
            self.last = layers.Activation("relu")

        def call(self, inputs, training=None):
            x = inputs
            for part in self.parts:
                x = part(x)
            return [self.last(layers.add([self.matching(inputs), x])), x]

    class Temporal(layers.Layer):
        def __init__(self, filters, dilations, return_sequences=False, skips=True):
            super().__init__(name="temporal")
            self.blocks = [
                Block(filters, dilation, f"block{number}")
                for number, dilation in enumerate(dilations)
            ]
            self.skips, self.return_sequences = skips, return_sequences
            self.slicing = layers.Lambda(lambda rows: rows[:, -1, :], name="slicing")

        def call(self, inputs, training=None):
            x, skips = inputs, []
            for block in self.blocks:
                x, skip = block(x)
                skips.append(skip)
            x = layers.add(skips) if self.skips else x
            return x if self.return_sequences else self.slicing(x)

    return Temporal(4, (1, 2, 4), **options)


def check(model, begin=0):
    """Exact as a file and as C, also frame by frame; the first output comes with frame `begin`."""
    shape = model.input_shape[1:]
    samples = np.random.default_rng(3).normal(size=(16, *shape)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(model, weight_bits=2, calibration_data=samples)
    file = assert_exact(quantized, [samples], with_c=False)
    if host_run.compiler() is None or not runtime.available(runtime.TFLM):
        pytest.skip("needs a C compiler and tflite_micro")
    sources = generate.generate(file, streaming=True)
    assert sources.stream.output.begin == begin
    stored = np.random.default_rng(4).integers(-128, 128, (2, *shape)).astype(np.int8)
    made = stream_run.run(sources.files, file, [stored], flags=host_run.sanitizers())
    expected = runtime.run(file, [stored], runtime=runtime.TFLM).outputs
    assert np.array_equal(made[0], expected[0])


@pytest.mark.parametrize("name", ["tf_keras", *slow("keras")])
def test_the_last_row(name):
    keras = KERASES[name]
    keras.utils.set_random_seed(1)
    frames = keras.layers.Input((FRAMES, 3))
    x = temporal_layer(keras)(frames)
    check(keras.Model(frames, keras.layers.Dense(3, activation="softmax", name="head")(x)))


@pytest.mark.parametrize("name", slow("keras", "tf_keras"))
def test_every_row(name):
    keras = KERASES[name]
    keras.utils.set_random_seed(2)
    frames = keras.layers.Input((FRAMES, 3))
    rows = temporal_layer(keras, return_sequences=True, skips=False)(frames)
    check(keras.Model(frames, keras.layers.Dense(2, name="head")(rows)))


@pytest.mark.slow
def test_separable_and_cropped_layers():
    layers = tf_keras.layers
    frames = layers.Input((FRAMES, 3))
    x = layers.SeparableConv1D(4, 3, padding="valid", activation="relu", name="separable")(frames)
    y = layers.ZeroPadding1D((8, 0))(x)
    y = layers.DepthwiseConv1D(5, dilation_rate=2, name="depthwise")(y)
    x = layers.Add()([x, layers.BatchNormalization()(y)])
    x = layers.Concatenate()([layers.Cropping1D((2, 0))(x), layers.Conv1D(4, 3, name="conv")(x)])
    x = layers.Dense(5, activation="swish", name="each")(x)
    x = layers.Flatten()(layers.MaxPooling1D(2)(x))
    check(tf_keras.Model(frames, layers.Dense(3, name="head")(x)), begin=FRAMES - 1)


@pytest.mark.slow
def test_time_and_features():
    layers = tf_keras.layers
    frames = layers.Input((FRAMES, 6, 1))
    x = layers.ZeroPadding2D(((2, 0), (1, 1)))(frames)
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(layers.ZeroPadding2D(((2, 0), (1, 1)))(x))
    x = layers.Reshape((FRAMES, 12))(layers.AveragePooling2D((1, 2))(x))
    x = layers.Conv1D(4, 3, padding="causal", strides=2, name="strided")(x)
    pooled = [layers.GlobalAveragePooling1D()(x), layers.GlobalMaxPooling1D()(x)]
    x = layers.Dense(3, name="head")(layers.Concatenate()(pooled))
    check(tf_keras.Model(frames, x), begin=FRAMES - 2)


@pytest.mark.slow
def test_keras_tcn():
    tcn = pytest.importorskip("tcn", reason="keras-tcn is not installed")
    keras = tf_keras if issubclass(tcn.TCN, tf_keras.layers.Layer) else keras_3
    frames = keras.layers.Input((FRAMES, 3))
    x = tcn.TCN(nb_filters=4, kernel_size=3, dilations=(1, 2), use_batch_norm=True)(frames)
    check(keras.Model(frames, keras.layers.Dense(3, name="head")(x)))
