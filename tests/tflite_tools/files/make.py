"""Makes the files that the tests of tflite_tools share: models, their files, a reference.

    PYTHONPATH=.:tests python tests/tflite_tools/files/make.py FOLDER

makes them anew, for tests of what older versions did not write.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import operation_nets
import small_nets
import tensorflow as tf

import tfbinreg
from tflite_tools.from_keras import convert
from tflite_tools.running import samples

SAMPLES = 24


def residual(folder: pathlib.Path) -> None:
    """The residual net: float, trained, its files, and what `verify` compares them with."""
    net = small_nets.residual_net()

    @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 3])])
    def run(image):
        return net(image)

    functions = [run.get_concrete_function()]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(functions, net)
    (folder / "float.tflite").write_bytes(converter.convert())
    images = np.random.default_rng(3).normal(size=(48, 8, 8, 3)).astype(np.float32)
    labels = np.random.default_rng(4).integers(0, 3, 48)
    small_nets.trained(net, images, labels).save(folder / "residual.keras")
    file = convert.convert(folder / "residual.keras")
    (folder / "residual.tflite").write_bytes(file.data)
    floating = convert.convert(folder / "residual.keras", input_type="float32")
    (folder / "residual_float32.tflite").write_bytes(floating.data)
    inputs = samples.seeded(file, samples=SAMPLES, seed=0)
    found = convert.reference(folder / "residual.keras", inputs)
    arrays = {}
    for part in ("codes", "predictions", "activations"):
        arrays |= {f"{part}/{name}": array for name, array in getattr(found, part).items()}
    np.savez_compressed(folder / "residual.npz", **arrays)


def packable(folder: pathlib.Path) -> None:
    """The packable net at every width that a format is made of."""
    for bits in (2, 3, 4, 5, 8):
        for per_channel in (True, False):
            name = f"packable_{bits}_{'c' if per_channel else 't'}"
            model = small_nets.quantized_packable(weight_bits=bits, per_channel=per_channel)
            (folder / f"{name}.tflite").write_bytes(tfbinreg.to_tflite(model))
            if bits == 2 and per_channel:
                data = tfbinreg.to_tflite(model, input_type="float32")
                (folder / f"{name}_float32.tflite").write_bytes(data)
            if bits <= 4:
                options = {"weight_bits": bits, "per_channel": per_channel, "stored_bits": 4}
                data = tfbinreg.to_tflite(small_nets.quantized_packable(**options))
                (folder / f"{name}_int4.tflite").write_bytes(data)


def kinds(folder: pathlib.Path) -> None:
    """A net with every kind of operation."""
    folder.mkdir(exist_ok=True)
    images = np.random.default_rng(3).normal(size=(48, 8, 8, 3)).astype(np.float32)
    for name, wire in operation_nets.NETS.items():
        _, data = operation_nets.converted(operation_nets.fresh(wire), images)
        (folder / f"{name.replace(' ', '_')}.tflite").write_bytes(data)


def main(path: str) -> None:
    """Write everything."""
    folder = pathlib.Path(path)
    kinds(folder / "kinds")
    residual(folder)
    packable(folder)
    data = tfbinreg.to_tflite(small_nets.quantized_of_two_inputs())
    (folder / "two_inputs.tflite").write_bytes(data)


if __name__ == "__main__":
    main(sys.argv[1])
