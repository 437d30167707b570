"""ImageNet-like data as tf.data pipelines: a folder of images, or tensorflow_datasets."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import tensorflow as tf

_RESIZE = 256 / 224  # the validation images are resized by this much more than is cropped


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Batches of (float32 images in [0, 255], int labels), training endlessly repeated.

    Attributes:
        train: shuffled, randomly cropped and flipped.
        validation: center crops, once.
        classes: how many.
        steps: training batches in an epoch.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    classes: int
    steps: int


def folder(data_dir: str, size: int, batch: int, seed: int) -> Data:
    """DATA_DIR/train/<class>/* and DATA_DIR/val/<class>/* (JPEG, PNG).

    Raises:
        ValueError: if a folder is missing or empty, or the classes differ.
    """
    classes = _classes(os.path.join(data_dir, "train"))
    if _classes(os.path.join(data_dir, "val")) != classes:
        raise ValueError(f"{data_dir}/train and {data_dir}/val have different classes.")
    sets = {}
    for part in ("train", "val"):
        files = [
            (os.path.join(data_dir, part, name, file), label)
            for label, name in enumerate(classes)
            for file in sorted(os.listdir(os.path.join(data_dir, part, name)))
        ]
        if not files:
            raise ValueError(f"{data_dir}/{part} has no images.")
        paths, labels = zip(*files, strict=True)
        sets[part] = tf.data.Dataset.from_tensor_slices((list(paths), list(labels)))
    train = sets["train"].shuffle(len(sets["train"]), seed=seed)
    return _batches(train, sets["val"], len(classes), size, batch, seed, _decoded_file)


def named(name: str, data_dir: str | None, size: int, batch: int, seed: int) -> Data:
    """A data set of tensorflow_datasets with splits "train" and "validation".

    Raises:
        ValueError: if tensorflow_datasets is not installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError("--tfds needs tensorflow_datasets: pip install it.") from error
    builder = tfds.builder(name, data_dir=data_dir)
    builder.download_and_prepare()
    read = {"as_supervised": True, "shuffle_files": True}
    train = builder.as_dataset(split="train", **read).shuffle(10000, seed=seed)
    classes = builder.info.features["label"].num_classes
    validation = builder.as_dataset(split="validation", as_supervised=True)
    return _batches(train, validation, classes, size, batch, seed, lambda x: x)


def _classes(path: str) -> list[str]:
    if not os.path.isdir(path):
        raise ValueError(f"No folder {path}.")
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())


def _decoded_file(path: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)


def _batches(
    train: Any, validation: Any, classes: int, size: int, batch: int, seed: int, decode: Any
) -> Data:
    steps = max(1, len(train) // batch)

    def training(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _random_crop(decode(image), size), label

    def evaluation(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _center_crop(decode(image), size), label

    parallel = {"num_parallel_calls": tf.data.AUTOTUNE}
    repeated = train.repeat().map(training, **parallel).batch(batch, drop_remainder=True)
    once = validation.map(evaluation, **parallel).batch(batch)
    prefetch = tf.data.AUTOTUNE
    return Data(repeated.prefetch(prefetch), once.prefetch(prefetch), classes, steps)


def _random_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """A crop of 8 to 100 % of the area and an aspect of 3:4 to 4:3, flipped every second time."""
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([0, 0, 4]),
        area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        use_image_if_no_bounding_boxes=True,
    )
    crop = tf.image.resize(tf.slice(image, begin, extent), [size, size])
    return tf.ensure_shape(tf.image.random_flip_left_right(crop), [size, size, 3])


def _center_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = _RESIZE * size / tf.reduce_min(shape)
    larger = tf.image.resize(image, tf.cast(tf.math.ceil(shape * scale), tf.int32))
    return tf.ensure_shape(tf.image.resize_with_crop_or_pad(larger, size, size), [size, size, 3])
