"""Fine-tunes MLPerf Tiny's ResNet-8 at low bits on CIFAR-10 and checks the converted files.

    python examples/resnet8_cifar10.py --data_dir DIR [--output_dir runs/resnet8]

DIR contains mlperf_tiny_resnet8.h5 (mlcommons/tiny, Apache-2.0) and, unless tf_keras downloads it,
cifar10.npz. Trains LSQ + BR briefly on rows 0-39,999 and reports on rows 40,000-49,999
(data_batch_5). The published net was trained on all 50,000 rows, so its accuracy here, and what
fine-tuning keeps of it, is not a test accuracy: the run checks codes and agreement.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from typing import Any

import data
import deploy
import numpy as np
import tf_keras as keras

import tfbinreg

SETTINGS = {"W2A8": (2, 8), "W4A8": (4, 8), "W4A4": (4, 4), "W2A2": (2, 2)}
BATCH = 128


def fine_tune(
    model: Any, split: data.Split, bits: tuple[int, int], epochs: int, switch_epoch: int
) -> Any:
    """LSQ, then LSQ + BR from `switch_epoch` on; Adam with cosine decay from 0.001."""
    images = split.train_images.astype(np.float32)
    quantized = tfbinreg.quantize_apply(
        model, weight_bits=bits[0], activation_bits=bits[1], calibration_data=images[:512]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.001, epochs * -(-len(images) // BATCH))
    quantized.compile(
        keras.optimizers.Adam(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    callback = tfbinreg.BinRegularization("two_stage", switch_epoch)
    quantized.fit(
        images,
        split.train_labels,
        batch_size=BATCH,
        epochs=epochs,
        callbacks=[callback],
        verbose=2,
    )
    seen = images[:6400], split.train_labels[:6400]
    print(tfbinreg.finalize(quantized, seen, batches=100))
    return quantized


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="folder with mlperf_tiny_resnet8.h5")
    parser.add_argument("--output_dir", default="runs/resnet8")
    parser.add_argument("--rows", type=int, default=40000, help="training rows to use")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--switch_epoch", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.makedirs(options.output_dir, exist_ok=True)
    split = data.cifar10(options.data_dir if _has_cifar(options.data_dir) else None)
    split = dataclasses.replace(
        split,
        train_images=split.train_images[: options.rows],
        train_labels=split.train_labels[: options.rows],
    )
    path = os.path.join(options.data_dir, "mlperf_tiny_resnet8.h5")
    test_images = split.test_images.astype(np.float32)
    model = keras.models.load_model(path, compile=False)
    accuracy = np.mean(model.predict(test_images, verbose=0).argmax(-1) == split.test_labels)
    lines = [
        "| setting | accuracy | file accuracy | top-1 agreement | wrong codes | file bytes |",
        "|---|---|---|---|---|---|",
        f"| float | {100 * accuracy:.2f} | | | | |",
    ]
    for name, bits in SETTINGS.items():
        keras.utils.set_random_seed(options.seed)
        quantized = fine_tune(model, split, bits, options.epochs, options.switch_epoch)
        quantized.save(os.path.join(options.output_dir, f"{name}.keras"))
        result = deploy.deploy(quantized, test_images, split.test_labels)
        with open(os.path.join(options.output_dir, f"{name}.json"), "w") as file:
            json.dump(dataclasses.asdict(result), file, indent=2)
        lines.append(
            f"| {name} | {100 * result.accuracy:.2f} | {100 * result.file_accuracy:.2f} "
            f"| {100 * result.agreement:.2f} | {result.wrong_codes} | {result.file_bytes} |"
        )
    print("\n".join(lines))


def _has_cifar(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "cifar10.npz"))


if __name__ == "__main__":
    main()
