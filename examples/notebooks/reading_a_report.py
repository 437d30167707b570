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
# # Reading a report
#
# `tflite_tools report` writes one page about a file: whether it is right, what it takes, and how each layer is quantized. Here are
# two small files and their pages, one that is right and one that is not, and how to read them.
#
# Install `pip install '.[examples,micro]'` in the repository first. It takes about a minute on a CPU.

# %%
import base64
import logging
import os
import pathlib

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ |= {"TERM": "dumb", "COLUMNS": "110"}  # plain text from the commands below
logging.getLogger("tensorflow").setLevel(logging.ERROR)

import numpy as np
import tf_keras as keras
from IPython.display import IFrame
from sklearn.datasets import load_digits

import tfbinreg

keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype(np.float32)
x, y, x_test, y_test = images[:1300], labels[:1300], images[1300:], labels[1300:]
np.save("x.npy", x_test)
np.save("y.npy", y_test)

# %% [markdown]
# ## Two files
#
# The same float net at two and at four bits. [The quickstart](quickstart.ipynb) explains these steps.

# %%
layers = keras.layers
model = keras.Sequential(
    [
        layers.Input((8, 8, 1)),
        layers.Conv2D(16, 3, use_bias=False, name="stem"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(32, 3, name="conv"),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(10, activation="softmax", name="classifier"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, epochs=20, verbose=0)
for bits in (2, 4):
    q_model = tfbinreg.quantize_apply(model, weight_bits=bits, calibration_data=x)
    q_model.compile(keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy")
    q_model.fit(x, y, epochs=5, verbose=0)
    tfbinreg.finalize(q_model, (x, y), target="tflm")
    q_model.save(f"w{bits}.keras")

# %%
# !tflite_tools convert w2.keras --output w2.tflite
# !tflite_tools convert w4.keras --output w4.tflite

# %% [markdown]
# ## The page of a file
#
# With `--reference` the file is compared with the model that it was made from. With samples and their classes, the page has the
# accuracy, too.

# %%
# !tflite_tools report w2.tflite --reference w2.keras --inputs x.npy --labels y.npy --output w2.html


# %%
def shown(path, height=520):
    """A page in a frame. Where no frame is shown, open the file itself."""
    text = base64.b64encode(pathlib.Path(path).read_bytes()).decode()
    return IFrame(f"data:text/html;charset=utf-8;base64,{text}", width="100%", height=height)


shown("w2.html")

# %% [markdown]
# From top to bottom:
#
# - **The verdict.** *Verified* means that no check failed. A check that was skipped says why under *Checks*: mostly
#   something is not installed. A warning is a difference that the runtimes' rounding explains.
# - **Inputs and outputs**, with what their numbers mean: `real = scale * (stored - zero point)`. This is the arithmetic
#   that your firmware needs for sensor data.
# - **Layers.** *Codes used* tells how many of the levels that the bits have are in use: `4 of 4` is full, and `100 of 256`
#   means that 7 bits might do. *Scales* are one for the layer or one for each channel.
# - **Bytes by layer.** The bars are the formats. The dashed lines are one byte for each weight, and the codes at their bits:
#   a format whose bar ends at the left line wastes nothing.
# - **Codes.** High bars at both ends mean that many weights are clipped. Ends that no weight has mean that the range is
#   wider than the weights.
# - **Rounding.** LiteRT rounds once where TFLM rounds twice, so some activations are apart by a level or a few. This file was
#   finalized for TFLM, whose numbers are the model's.
# - **Quantization card.** The choices that decide what the accuracy means, first and last layer and granularity among them. Notes
#   that say *not recorded* are yours to add: `convert --card data="digits"`.
#
# The checks as text:

# %%
# !tflite_tools verify w2.tflite --reference w2.keras --inputs x.npy --labels y.npy

# %% [markdown]
# ## A page that says no
#
# Someone has trained on, and the file is that of an older model. Here it is the model with four bits.

# %%
# !tflite_tools verify w2.tflite --reference w4.keras --samples 20

# %% [markdown]
# Read the first check that failed: `codes` compares the integers in the file with those of the model, layer by layer. What to do
# stands under it. The exit code is 1, so that a script or a CI job stops here. Do not judge by accuracy alone: a file of
# another training may have a fine one.
#
# ## Two files on one page
#
# Several files are put side by side. The picture has bytes against accuracy; filled points are files that no other one betters.

# %%
# !tflite_tools report w2.tflite w4.tflite --inputs x.npy --labels y.npy --output both.html

# %%
shown("both.html")

# %% [markdown]
# - *Bytes* of int8 files hardly depend on the bits, for they have a byte for each weight. *Flash as C* is what the bits save.
# - *Bits by layer* shows where files differ, and *quantization cards* what else does: a pair that differs in more than the
#   bits cannot tell what bits do.
#
# The same as data, for a table of your own:

# %%
import json

# !tflite_tools report w2.tflite w4.tflite --inputs x.npy --labels y.npy --output both.html --json > both.json
found = json.loads(pathlib.Path("both.json").read_text())
for file in found["files"]:
    runner = file["accuracy"][0]
    print(
        f"{file['name']}: {file['c_bytes']} bytes, {100 * runner['share']:.1f} % in {runner['runner']}"
    )
print(*found["card"], sep="\n")

# %% [markdown]
# ## Where to go from here
#
# - [The command line](../../docs/cli.md), [troubleshooting](../../docs/troubleshooting.md) by message
# - [Formats](../../docs/formats.md): why a file has the size that it has
