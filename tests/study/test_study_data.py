"""The study's data: three parts, and batches that only seed and epoch decide."""

import itertools

import numpy as np
import pytest

from examples.study.data import batches, crop_and_flip, epoch_batches, read_data


@pytest.fixture
def part():
    random = np.random.default_rng(0)
    return random.integers(1, 256, (10, 6, 5, 3), np.uint8), np.arange(10)


def test_three_parts_that_share_no_row(tmp_path):
    x = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=np.arange(10)[:, None])
    data = read_data(str(tmp_path), (4, 6, 9))
    for (images, labels), rows in zip(
        (data.train, data.choice, data.test), ([0, 1, 2, 3], [4, 5], [6, 7, 8]), strict=True
    ):
        assert images.ravel().tolist() == rows == labels.tolist()
    with pytest.raises(ValueError, match="10 rows, the study needs 11"):
        read_data(str(tmp_path), (4, 6, 11))
    with pytest.raises(ValueError, match="No x_train"):
        read_data(str(tmp_path / "nowhere"), (4, 6, 9))


def test_crops_and_mirrors_are_those_of_one_image_at_a_time(part):
    shifts = np.random.default_rng(1).integers(0, 9, (10, 2))
    flips = np.arange(10) % 2 == 0
    found = crop_and_flip(part[0], shifts, flips)
    for image, shift, flip, result in zip(part[0], shifts, flips, found, strict=True):
        padded = np.zeros((14, 13, 3), np.uint8)
        padded[4:10, 4:9] = image
        wanted = padded[shift[0] : shift[0] + 6, shift[1] : shift[1] + 5]
        np.testing.assert_array_equal(result, wanted[:, ::-1] if flip else wanted)


def test_an_epoch_has_every_image_once_but_for_the_rest(part):
    found = list(epoch_batches(part, 3, seed=0, epoch=0, augment=False))
    labels = np.concatenate([labels for _, labels in found])
    assert len(found) == 3 and len(set(labels)) == 9
    for inputs, classes in found:
        assert inputs.dtype == np.float32
        np.testing.assert_allclose(inputs, part[0][classes] / 255.0, rtol=1e-6)


def test_seed_and_epoch_decide_everything(part):
    def labels(seed, epoch):
        return [part[1].tolist() for part in epoch_batches(part, 5, seed, epoch, augment=True)]

    assert labels(1, 2) == labels(1, 2)
    assert len({str(labels(seed, epoch)) for seed in range(2) for epoch in range(3)}) == 6


def test_batches_begin_at_any_epoch(part):
    whole = list(itertools.islice(batches(part, 5, 7, 0, augment=True), 8))
    later = list(itertools.islice(batches(part, 5, 7, 3, augment=True), 2))
    for (a, labels_a), (b, labels_b) in zip(whole[6:], later, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(labels_a, labels_b)
