"""Small Keras nets that several test files share."""

import numpy as np
import tf_keras as keras

import tfbinreg

layers = keras.layers


def residual_net():
    """Conv, depthwise, residual sum, pooling and softmax, with statistics as after training."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="conv_bn")(x)
    x = skip = layers.ReLU(6.0, name="conv_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.Add(name="add")([x, skip])
    x = layers.ReLU(name="add_relu")(x)
    x = layers.AveragePooling2D(2, name="pool")(x)
    x = layers.Conv2D(6, 1, activation="relu", name="pointwise")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(3, activation="softmax", name="head")(x)
    model = keras.Model(image, x, name="residual")
    age_batch_norm(model)
    return model


def age_batch_norm(model):
    """Give every BatchNormalization factors, offsets and statistics that are not 1 and 0."""
    random = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            channels = layer.gamma.shape[0]
            gamma, variance = random.uniform(0.5, 1.5, (2, channels))
            beta, mean = random.normal(size=(2, channels)) / 4
            layer.set_weights([gamma, beta, mean, variance])


def trained(net, images, labels):
    """The net at two bits after an epoch, compiled and finalized."""
    recipe = tfbinreg.Recipe(
        weight_bits=2,
        activation_bits=4,
        per_channel=True,
        options={"bin_regularization": {"detach_step": False, "scale_free": True}},
    )
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=images)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=16, shuffle=False, verbose=0)
    tfbinreg.finalize(model, target="tflm")
    return model


def packable_net():
    """Kernels of every packable kind, with a thousand weights or more in the hidden ones."""
    keras.utils.set_random_seed(5)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="first")(image)
    x = layers.Conv2D(64, 1, activation="relu", name="pointwise")(x)
    x = layers.DepthwiseConv2D(5, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.ReLU(name="depthwise_relu")(x)
    x = layers.Conv2D(32, 3, padding="same", strides=2, name="conv")(x)
    x = layers.ReLU(name="conv_relu")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    x = layers.Dense(5, activation="softmax", name="head")(x)
    model = keras.Model(image, x, name="packable")
    random = np.random.default_rng(2)
    gamma, variance = random.uniform(0.5, 1.5, (2, 64))
    beta, mean = random.normal(size=(2, 64)) / 4
    model.get_layer("depthwise_bn").set_weights([gamma, beta, mean, variance])
    return model


def quantized_packable(**options):
    """The packable net, finalized."""
    inputs = np.random.default_rng(6).normal(size=(32, 8, 8, 3)).astype(np.float32)
    recipe = tfbinreg.Recipe(activation_bits=4, **options)
    model = tfbinreg.quantize_apply(packable_net(), recipe, calibration_data=inputs)
    tfbinreg.finalize(model, inputs, target="tflm")
    return model


def quantized_of_two_inputs():
    """A net with an image and six numbers as inputs, at four bits, finalized."""
    keras.utils.set_random_seed(6)
    image, extra = keras.Input((16, 16, 1), name="image"), keras.Input((6,), name="extra")
    x = layers.Flatten()(layers.Conv2D(8, 3, strides=2, activation="relu")(image))
    x = layers.Concatenate()([x, layers.Dense(8, activation="relu")(extra)])
    x = layers.Dense(4, activation="softmax")(layers.Dense(16, activation="relu")(x))
    random = np.random.default_rng(7)
    data = [random.random((32, *shape), "float32") for shape in ((16, 16, 1), (6,))]
    model = tfbinreg.quantize_apply(
        keras.Model([image, extra], x), weight_bits=4, calibration_data=data
    )
    tfbinreg.finalize(model, data, target="tflm")
    return model
