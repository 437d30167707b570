"""Sequences frame by frame compared with whole windows: instructions and memory of generated C.

    python benchmarks/streaming.py [--nets ...] [--bits 2 8] [--cpu cortex-m4] [--folder DIR]

Two nets that spot keywords in 49 frames of 10 coefficients, as MLPerf Tiny's does: causal dilated
convolutions with residual sums, depthwise separable ones in one of them, and a mean over the newest
49 rows. Instructions of one inference over the window, and of a frame with `--streaming`, are
counted in QEMU at -O2. Memory is the arena with the window, and the arena with state and frame.
Outputs are compared with TFLM's. --folder saves the files of the nets.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tf_keras as keras
from coverage import settle
from instructions import CPUS, noise
from measure import table

import tfbinreg
from tflite_tools.c import boards, generate, stream_run
from tflite_tools.running import runtime
from tflite_tools.schema.contents import Model, load

FRAMES, COEFFICIENTS, CLASSES = 49, 10, 12
layers = keras.layers


def _normalized(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization()(x))


def tcn(filters: int = 32) -> Any:
    """Causal convolutions of three taps, dilated by 1, 2, 4 and 8."""
    frames = keras.Input((FRAMES, COEFFICIENTS))
    x = _normalized(layers.Conv1D(filters, 3, padding="causal")(frames))
    for dilation in (1, 2, 4, 8):
        y = layers.Conv1D(filters, 3, padding="causal", dilation_rate=dilation)(x)
        x = layers.Add()([x, _normalized(y)])
    return _headed(frames, x)


def ds_tcn(filters: int = 64) -> Any:
    """The same with depthwise convolutions of five taps, and convolutions of one."""
    frames = keras.Input((FRAMES, COEFFICIENTS))
    x = _normalized(layers.Conv1D(filters, 3, padding="causal")(frames))
    for dilation in (1, 2, 4, 8):
        y = layers.ZeroPadding1D((4 * dilation, 0))(x)
        y = _normalized(layers.DepthwiseConv1D(5, dilation_rate=dilation)(y))
        x = layers.Add()([x, _normalized(layers.Conv1D(filters, 1)(y))])
    return _headed(frames, x)


def _headed(frames: Any, x: Any) -> Any:
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(frames, layers.Dense(CLASSES, activation="softmax")(x))


NETS: dict[str, Callable[[], Any]] = {"TCN": tcn, "DS-TCN": ds_tcn}


def file(name: str, bits: int, folder: str | None) -> Model:
    """The canonical file of a net, as it was kept in `folder`, or made and kept there."""
    path = pathlib.Path(folder or "", f"{name}_{bits}.tflite")
    if folder is not None and path.exists():
        return load(path.read_bytes())
    keras.utils.set_random_seed(0)
    model = NETS[name]()
    inputs = settle(model, 32)
    recipe = tfbinreg.Recipe(weight_bits=bits, activation_bits=8)
    quantized = tfbinreg.quantize_apply(model, recipe, calibration_data=inputs)
    tfbinreg.finalize(quantized, inputs)
    data = tfbinreg.to_tflite(quantized)
    if folder is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return load(data)


def row(name: str, bits: int, cpu: str, folder: str | None) -> list[str]:
    """A net's figures; fails if an output is not TFLM's."""
    model = file(name, bits, folder)
    inputs = noise(model)
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    whole, streamed = (generate.generate(model, streaming=own) for own in (False, True))
    stream = streamed.stream
    if stream is None:
        raise AssertionError(f"{name} takes no frames")
    ran = boards.run(whole, model, inputs, cpu=cpu)
    frames = stream_run.frames_of([np.concatenate([array[0]] * 2) for array in inputs])
    pushed = boards.run_frames(streamed, frames, cpu=cpu)
    if not np.array_equal(ran.outputs[0], wanted[0]) or not np.array_equal(
        pushed.outputs[stream.output.early], wanted[0][0].reshape(-1)
    ):
        raise AssertionError(f"{name} does not compute what TFLM does")
    window = sum(array[0].size for array in inputs)
    settled = round(float(np.median(pushed.instructions[stream.output.begin :])))
    memory = streamed.arena_bytes + stream.state_bytes + frames.shape[1]
    texts = [f"{boards.size(own, cpu=cpu).text}" for own in (whole, streamed)]
    return [
        f"{name} W{bits}",
        f"{ran.instructions:,}",
        f"{settled:,}",
        f"{ran.instructions / settled:.1f}",
        f"{whole.arena_bytes + window:,}",
        f"{memory:,}",
        f"{stream.state_bytes:,}",
        " / ".join(texts),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--bits", nargs="+", type=int, default=[2, 8])
    parser.add_argument("--cpu", choices=CPUS, default=CPUS[0])
    parser.add_argument("--folder")
    options = parser.parse_args(arguments)
    found = [
        row(name, bits, options.cpu, options.folder)
        for name in options.nets
        for bits in options.bits
    ]
    columns = ["net", "instructions, window", "a frame", "ratio", "RAM, window", "streaming"]
    print(table([*columns, "of it state", "text"], found))


if __name__ == "__main__":
    main()
