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
# # ResNet-8 in 16 KB of flash
#
# MLPerf Tiny's ResNet-8 has 77,360 weights: 309 kB as float32, 77 kB as int8. Here its weights and constants get 16 KB
# (16,384 bytes). That is less than two bits for each weight, so the bits are shared out where they matter most.
#
# Install `pip install '.[micro,plot]'` in the repository first. The data come from one of three places:
#
# - The environment variable `TFBINREG_DATA` names a folder with `cifar10.npz` and, if you have it, the published float net
#   `mlperf_tiny_resnet8.h5` ([mlcommons/tiny](https://github.com/mlcommons/tiny), Apache-2.0).
# - Without the variable, Keras downloads CIFAR-10.
# - With `TFBINREG_DATA=synthetic` there are ten noisy colours in place of images. That takes a minute, shows the
#   steps, and says nothing about accuracy.
#
# What you see below was made with the folder.

# %%
# %matplotlib inline
import logging
import os
import pathlib

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ |= {"TERM": "dumb", "COLUMNS": "110"}  # plain text from the commands below
logging.getLogger("tensorflow").setLevel(logging.ERROR)

import numpy as np
import tf_keras as keras

import tfbinreg

WHERE = os.environ.get("TFBINREG_DATA", "")
SMALL = WHERE == "synthetic"
PUBLISHED = pathlib.Path(WHERE, "mlperf_tiny_resnet8.h5")
keras.utils.set_random_seed(0)


def patterns(count):
    """Ten colours, each with noise: not images."""
    random = np.random.default_rng(count)
    labels = np.arange(count) % 10
    colours = np.random.default_rng(0).uniform(60, 190, (10, 1, 1, 3))
    noise = random.normal(0, 40, (count, 32, 32, 3))
    return np.clip(colours[labels] + noise, 0, 255).astype(np.uint8), labels


if SMALL:
    (images, labels), (test_images, test_labels) = patterns(320), patterns(160)
elif WHERE:
    with np.load(pathlib.Path(WHERE, "cifar10.npz")) as arrays:
        images, labels = arrays["x_train"], arrays["y_train"].reshape(-1)
else:
    (images, labels), _ = keras.datasets.cifar10.load_data()
    labels = labels.reshape(-1)
if not SMALL:  # of the last of the five training batches, which is held out
    images, test_images = images[:40_000], images[40_000:42_000]
    labels, test_labels = labels[:40_000], labels[40_000:42_000]
test_images = test_images.astype(np.float32)
print(f"{len(images)} images to train with, {len(test_images)} to test with")

# %% [markdown]
# ## 1. The float net
#
# The published net if it is there. It was trained on all 50,000 images, the held-out ones too, so no accuracy below is a
# test accuracy; they compare with each other. Without it, a net of the same layers is trained here.

# %%
layers = keras.layers


def resnet8():
    def convolution(x, filters, stride, size=3):
        return layers.Conv2D(filters, size, stride, padding="same")(x)

    def normalized(x):
        return layers.BatchNormalization()(x)

    inputs = x = layers.Input((32, 32, 3))
    x = layers.ReLU()(normalized(convolution(x, 16, 1)))
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        shortcut = x
        x = layers.ReLU()(normalized(convolution(x, filters, stride)))
        x = normalized(convolution(x, filters, 1))
        if stride > 1:
            shortcut = convolution(shortcut, filters, stride, size=1)
        x = layers.ReLU()(layers.Add()([x, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def trained(net, rows, epochs):
    """Adam from 0.001, with a cosine to zero."""
    steps = epochs * -(-len(rows) // 64)
    rate = keras.optimizers.schedules.CosineDecay(0.001, steps)
    net.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", ["accuracy"])
    net.fit(images[rows].astype(np.float32), labels[rows], 64, epochs, verbose=0)


def accuracy(net):
    return np.mean(net.predict(test_images, verbose=0).argmax(-1) == test_labels)


if PUBLISHED.exists():
    model = keras.models.load_model(PUBLISHED, compile=False)
else:
    model = resnet8()
    trained(model, np.arange(len(images)), epochs=5 if SMALL else 20)
print(f"float: {100 * accuracy(model):.2f} %")

# %% [markdown]
# ## 2. Bits for a budget
#
# `fit_flash_budget` measures how far the outputs move when one kernel alone has 1, 2, 3 or 4 bits. Then it chooses the bits
# whose sum moves them least and still fits. The limit is for packed weights and the constants of their channels. Some bytes of
# constants may come in training, so a little is left over.

# %%
KB, MARGIN = 1024, 256
sample = images[: 64 if SMALL else 512].astype(np.float32)
budget = tfbinreg.fit_flash_budget(model, 16 * KB - MARGIN, sample, widths=(1, 2, 3, 4, 8))
print(budget)

# %% [markdown]
# Each line tells what a layer has, what it gets, and what fewer bits would do to the outputs if this layer alone had them,
# as a share of the outputs' variance. Large kernels that move the outputs little get the fewest bits.
#
# ## 3. Training with these bits
#
# Nothing is trained so far: `budget.recipe` has a rule for each layer. Training for 150 steps is short;
# [three times as many](../../docs/budgets.md#which-one) still gain some points. The same with 24 KB, to see what the flash is worth.

# %%
EPOCHS = 1 if SMALL else 2
rows = np.random.default_rng(0).permutation(len(images))[: 320 if SMALL else 4800]


def fine_tuned(recipe):
    """Quantized, trained for 150 steps, and finalized for a microcontroller."""
    keras.utils.set_random_seed(0)
    q_model = tfbinreg.quantize_apply(model, recipe, calibration_data=sample)
    untrained = accuracy(q_model)
    trained(q_model, rows, EPOCHS)
    seen = images[rows[:2560]].astype(np.float32), labels[rows[:2560]]
    tfbinreg.finalize(q_model, seen, target="tflm")
    print(f"untrained {100 * untrained:.2f} %, trained {100 * accuracy(q_model):.2f} %")
    return q_model


small = fine_tuned(budget.recipe)
small.save("resnet8_16kb.keras")

# %%
wide = tfbinreg.fit_flash_budget(model, 24 * KB - MARGIN, sample, widths=(1, 2, 3, 4, 8))
large = fine_tuned(wide.recipe)
large.save("resnet8_24kb.keras")

# %% [markdown]
# ## 4. The files, the C, and the proof
#
# The C has packed weights and constants in flash, which is what the budget is for. The kernels' code comes on top. The
# estimate was on the safe side: `tflite_tools convert --flash_budget 16KB` corrects it by what the C really takes.

# %%
# !tflite_tools convert resnet8_16kb.keras --output resnet8_16kb.tflite
# !tflite_tools convert resnet8_24kb.keras --output resnet8_24kb.tflite
# !tflite_tools convert resnet8_16kb.tflite --format c --output resnet8_16kb_c

# %%
# !tflite_tools verify resnet8_16kb.tflite --reference resnet8_16kb.keras --samples 20

# %% [markdown]
# ## 5. Side by side
#
# Two files on one page: bytes, RAM, accuracy, and the bits of each layer. `--json` gives the same as data.

# %%
import json

np.save("x.npy", test_images)
np.save("y.npy", test_labels)
FILES = "resnet8_16kb.tflite resnet8_24kb.tflite"
# !tflite_tools report {FILES} --inputs x.npy --labels y.npy --output page.html --json > page.json
found = json.loads(pathlib.Path("page.json").read_text())
for file in found["files"]:
    figures = ", ".join(f"{own['runner']} {100 * own['share']:.1f} %" for own in file["accuracy"])
    print(
        f"{file['name']}: {file['c_bytes']} bytes of flash, {file['c_arena_bytes']} of RAM; {figures}"
    )
for layer in found["layers"]:
    print(f"{layer[0]['name']:12}", *(f"{one['width']:>7}" for one in layer))

# %%
fits = found["files"][0]["c_bytes"] <= 16 * KB
print("fits into 16 KB" if fits else "does NOT fit into 16 KB")
results = [(file["name"], file["c_bytes"], file["accuracy"][0]["share"]) for file in found["files"]]
tfbinreg.plot.pareto(results, limit=16 * KB)

# %% [markdown]
# ## Where to go from here
#
# - [Flash budgets](../../docs/budgets.md): bits by channel, learned bits, and how the ways compare over seeds
# - RAM has a limit of its own: `convert --format c --ram_budget 34KB` runs this net in 34 KB instead of 51
#   ([memory](../../docs/c.md#memory))
# - A longer training with a [teacher](../../docs/training.md)
