# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your own model
#
# A model of Keras 3, one with a layer of your own, and one that is refused: what you type, and what you get.

# %%
import logging
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
logging.getLogger("tensorflow").setLevel(logging.ERROR)

import keras
import numpy as np
import tf_keras

import tfbinreg

images = np.random.default_rng(0).random((64, 16, 16, 3)).astype(np.float32)

# %% [markdown]
# ## A Keras 3 model
#
# Pass it as it is. The result is a tf_keras model with the same layers and weights, because
# tensorflow-model-optimization trains those: compile it with a `tf_keras` optimizer.

# %%
layers = keras.layers
inputs = keras.Input((16, 16, 3))
x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
y = layers.SeparableConv2D(8, 3, padding="same", name="branch")(x)
x = layers.Add(name="sum")([x, keras.ops.relu(y)])
x = layers.GlobalAveragePooling2D()(x)
outputs = layers.Dense(4, activation="softmax", name="head")(x)
model = keras.Model(inputs, outputs)
q_model = tfbinreg.quantize_apply(model, weight_bits=3, calibration_data=images)
q_model.compile(tf_keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy")
type(q_model)

# %% [markdown]
# Before any training the quantized outputs are near the float ones. How near depends on the bits.

# %%
float_outputs, outputs = model.predict(images, verbose=0), q_model.predict(images, verbose=0)
print(f"largest difference of a probability: {np.abs(float_outputs - outputs).max():.3f}")

# %% [markdown]
# ## A layer of your own
#
# Layers are read by what their `call` computes. Nothing has to be registered while that is made of operations that integers
# can do.


# %%
class Gate(tf_keras.layers.Layer):
    """x * sigmoid(x), written out."""

    def call(self, x):
        return x * tf_keras.activations.sigmoid(x)


own = tf_keras.Sequential(
    [
        tf_keras.layers.Input((16, 16, 3)),
        tf_keras.layers.Conv2D(8, 3, name="conv"),
        Gate(name="gate"),
        tf_keras.layers.GlobalAveragePooling2D(),
        tf_keras.layers.Dense(4, activation="softmax", name="head"),
    ]
)
print(tfbinreg.plan(own, weight_bits=2))

# %% [markdown]
# ## What cannot be done
#
# It is refused before training, all of it at once, by the names of your layers.

# %%
inputs = tf_keras.Input((16, 8))
x = tf_keras.layers.LSTM(8, name="memory")(inputs)
x = tf_keras.layers.LayerNormalization(name="norm")(x)
refused = tf_keras.Model(inputs, tf_keras.layers.Dense(4, name="head")(x))
try:
    tfbinreg.quantize_apply(refused, weight_bits=4)
except ValueError as error:
    print(error)

# %% [markdown]
# [What is supported](../../docs/supported.md), and [how to teach a layer](../../docs/guides/own_layer.md) that computes with
# something else.
