"""Which networks can be quantized, converted and trusted: one row per network and setting.

`--list FILE` uses nets from other packages instead (`other_nets.json`); nothing else needs these
packages.

For each: `quantize_apply`, five training steps, save and load, convert, verify, compare LiteRT,
TFLM and generated C with the model, number by number. Refused nets get a table of the refused
layers. The weights are random and batch normalization is adapted to the data. The inputs are
smooth: noise looks the same to a convolution everywhere, so all outputs would be the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import operator
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # `tf.keras` of other packages is tf_keras

import keras as keras3
import numpy as np
import rows
import tensorflow as tf
import tf_keras
import zoo

import tfbinreg
from tfbinreg.deploy.freeze import freeze
from tfbinreg.frontend.keras_dialects import frontend, is_tensor, tensor_key
from tfbinreg.frontend.program import replaced
from tfbinreg.network.edges import nested_inputs
from tflite_tools.c import generate, host_run
from tflite_tools.checks import trained_model as verifier
from tflite_tools.from_keras import convert
from tflite_tools.running import runtime, samples
from tflite_tools.schema import codes
from tflite_tools.schema.contents import load

BITS = {"W4A8": (4, 8), "W2A2": (2, 2)}
KERASES = {"tf_keras": tf_keras, "Keras 3": keras3}
_STEPS, _BATCH = 5, 8
_HEAD = 0.5  # factor of the last kernel: a softmax of large numbers has no gradient
_COARSE = 4  # random numbers along each side of an image, the rest is interpolated
_KEYS = ("net", "Keras", "bits")
_COLUMNS = (
    "net", "Keras", "bits", "loss", "moved", "reload", "codes", "integer", "levels", "operators",
    "LiteRT", "TFLM", "C", "mean LSB", "spread", "top-1", "seconds",
)  # fmt: skip
_REFUSED = (*_KEYS[:2], "refused")
_RUNTIMES = {"litert": ("LiteRT", runtime.LITERT), "tflm": ("TFLM", runtime.TFLM)}


def prepared(
    name: str, kind: str, count: int, nets: Mapping[str, Any] = zoo.NETS
) -> tuple[Any, np.ndarray]:
    """A network of random weights, inputs to train and calibrate it, and `count` more."""
    tf_keras.utils.set_random_seed(0)
    model = nets[name](tf_keras)
    if isinstance(nets[name], zoo.Listed):
        tfbinreg.plan(model)  # refuses it at once
    data = settle(model, _STEPS * _BATCH + count)
    if kind == "tf_keras" or isinstance(nets[name], zoo.Listed):
        return model, data
    twin = nets[name](keras3)
    _copy(model, twin)
    return twin, data


def settle(model: Any, count: int) -> np.ndarray:
    """Make a net of random weights one that learns; returns `count` inputs that it knows."""
    pixels = any(type(layer).__name__ == "Rescaling" for layer in model.layers)
    data = smooth(count, model.input_shape[1:])
    data = 127.5 * (data + 1.0) if pixels else data
    _normalize(model, data[: 2 * _BATCH])
    for head in [layer for layer in _leaves(model) if hasattr(layer, "kernel")][-1:]:
        head.kernel.assign(_HEAD * head.kernel)
    return data


def smooth(count: int, shape: Sequence[int]) -> np.ndarray:
    """Images or signals of different contrast and colour in [-1, 1], float32; plain features, which
    have no neighbours, are noise."""
    random = np.random.default_rng(0)
    channels, sides = shape[-1], (*shape[:-1], 1, 1)[:2]
    coarse = random.uniform(-1.0, 1.0, (count, *(min(_COARSE, side) for side in sides), channels))
    fine = np.asarray(tf.image.resize(coarse, sides, "bicubic"))
    contrast = random.uniform(0.3, 1.5, (count, 1, 1, 1))
    colour = random.uniform(-0.5, 0.5, (count, 1, 1, channels))
    fine = np.clip(contrast * fine + colour, -1.0, 1.0)
    return fine.reshape(count, *shape).astype(np.float32)


def _normalize(model: Any, data: Any) -> None:
    """Give every batch normalization the statistics of the data."""
    front = frontend(model)
    inputs = tf.nest.flatten(nested_inputs(model))
    values = {tensor_key(tensor): data for tensor in inputs}

    def known(leaf: Any) -> Any:
        return values[tensor_key(leaf)] if is_tensor(leaf) else leaf

    for call in front.calls(model):
        keys = [tensor_key(tensor) for tensor in call.outputs]
        if all(key in values for key in keys):
            continue  # an input
        args, kwargs = replaced(tuple(call.args), known), replaced(dict(call.kwargs), known)
        if front.is_model(call.target):
            _normalize(call.target, args[0])
        elif type(call.target).__name__ == "BatchNormalization":
            axes = tuple(range(args[0].ndim - 1))
            call.target.moving_mean.assign(args[0].mean(axis=axes))
            call.target.moving_variance.assign(args[0].var(axis=axes))
        made = tf.nest.flatten(call.target(*args, **kwargs))
        values.update(zip(keys, map(np.asarray, made), strict=True))


def _copy(source: Any, target: Any) -> None:
    """Give a Keras 3 model the weights of the tf_keras one of the same layers."""
    theirs = [layer for layer in _leaves(source) if layer.get_weights()]
    ours = [layer for layer in _leaves(target) if _kept_weights(layer)]
    for old, new in zip(theirs, ours, strict=True):
        for value, variable in zip(old.get_weights(), _kept_weights(new), strict=False):
            variable.assign(value)


def _kept_weights(layer: Any) -> list[Any]:
    return [weight for weight in layer.weights if "seed_generator" not in weight.path]


def _leaves(model: Any) -> list[Any]:
    leaves = []
    for layer in model.layers:
        leaves += _leaves(layer) if hasattr(layer, "layers") else [layer]
    return leaves


def cell(
    name: str, kind: str, setting: str, count: int = 100, nets: Mapping[str, Any] = zoo.NETS
) -> dict[str, Any]:
    """One row: what happened to a network at one setting. Of several outputs, the first one's
    spread is told."""
    start = time.perf_counter()
    of = dict(zip(_KEYS, (name, kind, setting), strict=True))
    try:
        model, inputs = prepared(name, kind, count, nets)
    except tfbinreg.RefusedError as error:
        return {**of, "refused": error.counts}
    data, unseen = np.split(inputs, [_STEPS * _BATCH])
    weight_bits, activation_bits = BITS[setting]
    # No calibration data: the first batch, normalized as the quantized net is, starts the steps.
    quantized = tfbinreg.quantize_apply(
        model, weight_bits=weight_bits, activation_bits=activation_bits
    )
    quantized.compile(tf_keras.optimizers.Adam(1e-6), _correlation)
    random = np.random.default_rng(1)
    targets = tf.nest.map_structure(
        lambda output: random.normal(size=(len(data), *output.shape[1:])).astype(np.float32),
        quantized.output,
    )
    first, others = (
        tf.nest.map_structure(operator.itemgetter(part), targets) for part in _split(_BATCH)
    )
    losses = [np.sum(quantized.train_on_batch(data[:_BATCH], first))]
    before = [variable.numpy() for variable in quantized.step_variables]
    rest = quantized.fit(data[_BATCH:], others, _BATCH, verbose=0, shuffle=False)
    losses += rest.history["loss"]
    moved = np.mean(
        [np.any(old != v.numpy()) for old, v in zip(before, quantized.step_variables, strict=True)]
    )
    # Nets of other packages keep their statistics: for choosing some the net runs many times.
    tfbinreg.finalize(quantized, None if isinstance(nets[name], zoo.Listed) else data)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "q.keras")
        quantized.save(path)
        file = load(tfbinreg.to_tflite(quantized))
        inputs = dict.fromkeys(samples.input_names(file), unseen)
        reference = convert.reference(path, inputs)  # of the loaded model
        report = verifier.verify(file, reference=reference, inputs=inputs, time_limit=900)
    stored = codes.codes_of(file)
    wrong = sum(
        int(np.count_nonzero(stored[layer] != coded.codes))
        for layer, coded in tfbinreg.integer_codes(quantized).items()
    )
    agreement = report["agreement"].figures
    frozen = freeze(quantized)
    level = float(frozen.ops[frozen.outputs[0]].grid.scale)
    predicted = next(iter(reference.predictions.values()))
    again = tf.nest.flatten(quantized.predict(unseen, verbose=0))
    same = all(map(np.array_equal, reference.predictions.values(), again))
    spread = np.std(predicted, axis=0).mean() / level
    differ = differences(quantized, unseen)
    return {
        **of,
        "loss": "finite" if np.all(np.isfinite(losses)) else "not finite",
        "moved": f"{100 * moved:.0f} %",
        "reload": "equal" if same else "differs",
        "codes": f"{wrong} wrong",
        "integer": str(report["integer"].verdict.value),
        "levels": str(report["levels"].verdict.value),
        "operators": str(report["layers"].verdict.value),
        **differ,
        "mean LSB": f"{agreement['mean_lsb']:.3f}",
        "spread": f"{spread:.1f}",
        "top-1": f"{100 * agreement.get('top1', float('nan')):.0f} %",
        "seconds": f"{time.perf_counter() - start:.0f}",
    }


def differences(model: Any, inputs: np.ndarray) -> dict[str, str]:
    """How many output integers of each runtime, and of generated C, are not the model's; the model
    is finalized for each."""
    found = {}
    for target, (title, name) in _RUNTIMES.items():
        tfbinreg.finalize(model, target=target)
        file = load(tfbinreg.to_tflite(model))
        stored = samples.stored(file, dict.fromkeys(samples.input_names(file), inputs))
        grids = [file.main.tensors[index].quantization for index in file.main.outputs]
        outputs = tf.nest.flatten(model(inputs))  # eagerly: nothing has to be traced
        expected = [
            np.rint(np.asarray(output) / grid.scale[0]) + grid.zero_point[0]
            for output, grid in zip(outputs, grids, strict=True)
        ]
        made = {title: runtime.run(file, stored, runtime=name, time_limit=900).outputs}
        if name == runtime.TFLM:
            made["C"] = host_run.run(generate.generate(file).files, file, stored, flags=())
        for column, numbers in made.items():
            pairs = zip(numbers, expected, strict=True)
            wrong = sum(int(np.count_nonzero(ours != theirs)) for ours, theirs in pairs)
            found[column] = f"{wrong} differ" if wrong else "equal"
    return found


def _split(count: int) -> tuple[slice, slice]:
    """The first `count` of samples, and the others."""
    return slice(count), slice(count, None)


@tf_keras.saving.register_keras_serializable("benchmarks")
def _correlation(target: Any, output: Any) -> Any:
    """A loss whose gradient reaches every step, whatever the output layer."""
    return -keras3.ops.sum(target * output) / len(output)


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table, and those of refused nets as another."""
    refused = [
        {**row, "refused": ", ".join(f"{count} {what}" for what, count in row["refused"].items())}
        for row in found
        if "refused" in row
    ]
    table = rows.markdown(_COLUMNS, [row for row in found if "refused" not in row])
    return table + ("\n\n" + rows.markdown(_REFUSED, refused) if refused else "")


def in_own_process(
    name: str, kind: str, setting: str, samples: int, path: str | None
) -> dict[str, Any] | None:
    """`cell` in a process of its own; None if it failed."""
    flags = ["--samples", str(samples), *(["--list", path] if path else [])]
    variables = {"TF_USE_LEGACY_KERAS": str(int(kind == "tf_keras"))}
    return rows.in_own_process(__file__, (name, kind, setting), flags, variables)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a network failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", metavar="FILE", help="nets of other packages (zoo.listed)")
    parser.add_argument("--nets", nargs="+", help="only these networks")
    parser.add_argument(
        "--keras", nargs="+", choices=KERASES, help="only these; --list sets its own"
    )
    parser.add_argument("--bits", nargs="+", choices=BITS, default=list(BITS))
    parser.add_argument("--samples", type=int, default=100, help="number of compared inputs")
    parser.add_argument("--jobs", type=int, default=1, help="parallel networks (default 1)")
    parser.add_argument(
        "--json", metavar="FILE", help="save the rows here; a stopped run continues from them"
    )
    parser.add_argument("--of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    nets = zoo.listed(options.list) if options.list else zoo.NETS
    if options.of:
        print(json.dumps(cell(*options.of, options.samples, nets)))
        return 0
    unknown = sorted(set(options.nets or nets) - set(nets))
    if unknown:
        parser.error(f"no nets {', '.join(unknown)}: there are {', '.join(nets)}")
    cells = [
        (name, kind, setting)
        for name, kind, setting in itertools.product(
            options.nets or nets, options.keras or KERASES, options.bits
        )
        if kind in getattr(nets[name], "keras", KERASES)
    ]
    found = rows.kept(options.json, _KEYS)
    missing = [of for of in cells if of not in found]
    with ThreadPool(options.jobs) as pool:
        made = pool.imap_unordered(
            lambda of: (of, in_own_process(*of, options.samples, options.list)), missing
        )
        for of, row in made:
            if row is not None:
                found[of] = row
                rows.keep(options.json, list(found.values()))
    done = [found[of] for of in cells if of in found]
    print(markdown(done))
    return int(len(done) < len(cells))


if __name__ == "__main__":
    sys.exit(main())
