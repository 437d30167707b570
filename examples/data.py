"""Data for the examples: from `--data_dir`, else from tf_keras.datasets."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import tf_keras


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images in [0, 255] as uint8 NHWC, labels as int64."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def fashion_mnist(data_dir: str | None, rows: int = 55000) -> Split:
    """Fashion-MNIST: train on the first 55,000 training rows, or fewer, test on the official test
    set.

    The last 5,000 training rows are for choosing hyper-parameters.
    """
    if data_dir is None:
        (x, y), (x_test, y_test) = tf_keras.datasets.fashion_mnist.load_data()
    else:
        with np.load(os.path.join(data_dir, "fashion_mnist.npz")) as arrays:
            x, y = arrays["x_train"], arrays["y_train"]
            x_test, y_test = arrays["x_test"], arrays["y_test"]
    rows = min(rows, 55000)
    return Split(x[:rows, ..., None], _labels(y)[:rows], x_test[..., None], _labels(y_test))


def cifar10(data_dir: str | None) -> Split:
    """CIFAR-10: train on training rows 0-39,999, test on rows 40,000-49,999 (data_batch_5)."""
    if data_dir is None:
        (x, y), _ = tf_keras.datasets.cifar10.load_data()
    else:
        with np.load(os.path.join(data_dir, "cifar10.npz")) as arrays:
            x, y = arrays["x_train"], arrays["y_train"]
    return Split(x[:40000], _labels(y)[:40000], x[40000:], _labels(y)[40000:])


def _labels(labels: np.ndarray) -> np.ndarray:
    return labels.reshape(-1).astype(np.int64)
