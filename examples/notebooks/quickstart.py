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
# # From a float Keras model to C for a microcontroller
#
# A small digit classifier gets 2-bit weights, becomes a TFLite file that holds exactly the trained
# codes, and then C. It takes about a minute on a CPU. Install `pip install '.[examples,micro,plot]'` in the
# repository first.

# %%
# %matplotlib inline
import logging
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ |= {"TERM": "dumb", "COLUMNS": "110"}  # plain text from the commands below
logging.getLogger("tensorflow").setLevel(logging.ERROR)

import numpy as np
import tf_keras as keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfbinreg

keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype(np.float32)
x, x_test, y, y_test = train_test_split(images, labels, test_size=0.3, random_state=0)
x.shape, x_test.shape

# %% [markdown]
# ## 1. The float model
#
# Any Sequential or Functional model of tf_keras or Keras 3 will do. Quantized training starts from its weights, so
# train it to the end.

# %%
layers = keras.layers
model = keras.Sequential(
    [
        layers.Input((8, 8, 1)),
        layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(32, 1, use_bias=False, name="pointwise"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, padding="same", use_bias=False, name="conv"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(10, activation="softmax", name="classifier"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, epochs=25, verbose=0)
print(f"float: {100 * model.evaluate(x_test, y_test, verbose=0)[1]:.1f} %")

# %% [markdown]
# ## 2. The plan
#
# `plan` says what each layer would get and why, before anything is changed. The first and the last kernel keep
# 8 bits unless you say otherwise.

# %%
print(tfbinreg.plan(model, weight_bits=2))

# %% [markdown]
# ## 3. Quantized training
#
# `quantize_apply` puts learned step sizes into the model. The calibration data lets the steps of the activations start from
# real inputs. Bin regularization, switched on halfway, pulls the weights onto their levels. The paper's strength is 0.5, for
# 300,000 steps; here are 200.

# %%
EPOCHS, BATCH = 10, 32
q_model = tfbinreg.quantize_apply(model, weight_bits=2, activation_bits=8, calibration_data=x)
steps = EPOCHS * -(-len(x) // BATCH)
rate = keras.optimizers.schedules.CosineDecay(0.001, steps)
q_model.compile(
    keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
)
before = tfbinreg.plot.bins(q_model)
before

# %%
regularization = tfbinreg.BinRegularization("two_stage", switch_epoch=EPOCHS // 2, strength=50.0)
q_model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, callbacks=[regularization], verbose=0)
tfbinreg.plot.bins(q_model)

# %% [markdown]
# The bars show the weights in units of their steps, the dotted lines the four levels that two bits have. After training the
# weights stand closer to them.
#
# ## 4. Finalize
#
# From here on `predict` and `evaluate` compute what the device computes, in whole numbers. `target="tflm"` is for
# microcontrollers, which round twice where LiteRT rounds once.

# %%
print(tfbinreg.finalize(q_model, (x, y), target="tflm"))
print(f"2-bit weights: {100 * q_model.evaluate(x_test, y_test, verbose=0)[1]:.1f} %")
q_model.save("digits.keras")

# %% [markdown]
# ## 5. The file, and the proof
#
# `convert` writes a file with integer operators only. `verify` compares its codes and outputs with the model.

# %%
# !tflite_tools convert digits.keras --output digits.tflite
# !tflite_tools verify digits.tflite --reference digits.keras

# %% [markdown]
# ## 6. C
#
# The same integers as C99 with packed 2-bit weights, without a runtime, heap or floating point. `--package` makes it a library for
# Arduino or PlatformIO, an ESP-IDF component, a Zephyr module or a CMSIS-Pack.

# %%
# !tflite_tools convert digits.tflite --format c --output digits_c
# !tflite_tools verify digits_c --canonical digits.tflite

# %% [markdown]
# What the weights take as float32, as int8 and at two bits:

# %%
# !tflite_tools inspect digits.tflite

# %% [markdown]
# ## Where to go from here
#
# - [Which method for me?](../../docs/which_method.md)
# - [Two bits](../../docs/guides/two_bits.md), [the smallest flash](../../docs/guides/smallest_flash.md)
# - [Questions](../../docs/faq.md)
