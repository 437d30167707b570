"""Small nets around every kind of operation."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tfbinreg

layers = keras.layers


def silu(x):
    return layers.Activation("swish")(x)


def squeeze_and_excite(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(6, 1, activation="sigmoid")(gate)
    return layers.Multiply()([x, gate])


def hard_gate(x):
    gate = layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)
    return layers.Multiply()([layers.MaxPooling2D(1)(x), gate])


def dense_block(x):
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, layers.Conv2D(3, 3, padding="same")(y)])
    return layers.AveragePooling2D(2)(x)


def one_dimensional(x):
    x = layers.Reshape((16, 24))(x)
    x = layers.SeparableConv1D(6, 3, padding="same", activation="relu")(x)
    return layers.MaxPooling1D(2)(layers.BatchNormalization()(x))


NETS = {
    "Activation": lambda x: layers.Activation("tanh")(layers.Activation("sigmoid")(x)),
    "Add": lambda x: layers.Add()([x, layers.ReLU()(layers.Conv2D(6, 1)(x)), x]),
    "AveragePooling2D": layers.AveragePooling2D(3, 1, padding="same"),
    "AveragePooling2D of tanh": lambda x: layers.AveragePooling2D(2)(layers.Activation("tanh")(x)),
    "AveragePooling2D of shares": lambda x: layers.AveragePooling2D(2)(layers.Softmax()(x)),
    "BatchNormalization": lambda x: layers.BatchNormalization()(layers.MaxPooling2D(2)(x)),
    "ChannelAffine": hard_gate,
    "Concatenate": dense_block,
    "Conv2D in groups": layers.Conv2D(12, 3, padding="same", groups=3, activation="relu"),
    "Conv2DTranspose": layers.Conv2DTranspose(5, 3, 2, "same", activation="relu"),
    "Conv2DTranspose linear": layers.Conv2DTranspose(5, 2, 2),
    "Cropping2D": layers.Cropping2D(((1, 0), (2, 1))),
    "Dropout": layers.Dropout(0.5),
    "GlobalMaxPooling2D": layers.GlobalMaxPooling2D(),
    "HardSwish": lambda x: x * layers.ReLU(6.0)(x + 3.0) / 6.0,
    "LeakyReLU": layers.LeakyReLU(0.1),
    "Maximum": lambda x: layers.Maximum()([x, layers.Conv2D(6, 1)(x)]),
    "Minimum": lambda x: layers.Minimum()([layers.ReLU()(x), layers.Activation("sigmoid")(x)]),
    "Multiply": squeeze_and_excite,
    "PReLU": layers.PReLU("normal", shared_axes=(1, 2)),
    "PaddedMaxPooling2D": lambda x: layers.MaxPooling2D(3, 2)(
        tf.pad(x, [[0, 0], [1, 1], [2, 0], [0, 0]], constant_values=-1e9)
    ),
    "Permute": layers.Permute((3, 1, 2)),
    "Reshape": one_dimensional,
    "ResizeBilinear": layers.UpSampling2D(2, interpolation="bilinear"),
    "Slice": lambda x: x[:, 1:, ::2, :],
    "Softmax": layers.Softmax(),
    "Softmax of rows": layers.Softmax(1),
    "SpatialDropout2D": layers.SpatialDropout2D(0.5),
    "Subtract": lambda x: layers.Subtract()([x, layers.Conv2D(6, 1)(x)]),
    "UpSampling2D": layers.UpSampling2D((2, 1)),
    "ValueFunction": layers.Activation("gelu"),
    "ZeroPadding2D": layers.ZeroPadding2D(1),
    "silu": silu,
}


def fresh(wire):
    """A layer of the table anew, so that no model has called it before."""
    return type(wire).from_config(wire.get_config()) if hasattr(wire, "get_config") else wire


def converted(wire, images):
    """A quantized model with `wire` in its middle, trained a step, and its file."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(image))
    x = layers.Flatten()(wire(x))
    model = keras.Model(image, layers.Dense(3)(x), name="net")
    quantized = tfbinreg.quantize_apply(model, calibration_data=images)
    quantized.compile(keras.optimizers.SGD(0.01), "mse")
    quantized.fit(images, np.zeros((len(images), 3)), verbose=0)
    tfbinreg.finalize(quantized, images, target="tflm")
    return quantized, tfbinreg.to_tflite(quantized)
