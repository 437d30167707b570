"""Seeded inputs and the user's."""

import dataclasses

import numpy as np
import pytest

from tflite_tools.running import samples


def _narrowed(model, qmin, qmax):
    header = model.require_manifest()
    entries = tuple(
        dataclasses.replace(entry, qmin=qmin, qmax=qmax) if entry.tensor == "image" else entry
        for entry in header.activations
    )
    header = dataclasses.replace(header, activations=entries)
    return dataclasses.replace(model, manifest=header)


def test_the_same_seed_gives_the_same_inputs(int8_file):
    first, again = (samples.seeded(int8_file, samples=5, seed=1)["image"] for _ in range(2))
    other = samples.seeded(int8_file, samples=5, seed=2)["image"]
    assert first.shape == (5, 8, 8, 3)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_both_input_types_draw_the_same(int8_file, float_io_file):
    drawn = [
        samples.seeded(file, samples=3, seed=0)["image"] for file in (int8_file, float_io_file)
    ]
    np.testing.assert_array_equal(*drawn)


def test_inputs_stay_on_the_manifests_grid(int8_file):
    model = _narrowed(int8_file, -5, 6)
    inputs = samples.seeded(model, samples=50, seed=0)
    stored = samples.stored(model, inputs)[0]
    zero_point = model.main.tensors[model.main.inputs[0]].quantization.zero_point[0]
    assert sorted(set((stored - zero_point).reshape(-1).tolist())) == list(range(-5, 7))


def test_an_empty_grid_is_refused(int8_file):
    with pytest.raises(ValueError, match="empty range"):
        samples.seeded(_narrowed(int8_file, 5, 4), samples=1, seed=0)


def test_float_files_need_inputs(float_file):
    with pytest.raises(ValueError, match="no int8 grid"):
        samples.seeded(float_file, samples=1, seed=0)


def test_arrays_of_a_single_input_need_no_name(int8_file):
    array = np.ones((2, 8, 8, 3), np.uint8)
    taken = samples.arrange(int8_file, {"anything": array})["image"]
    assert taken.dtype == np.float32
    taken = samples.arrange(int8_file, {"labels": np.zeros(2), "image": array})["image"]
    np.testing.assert_array_equal(taken, array)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "called image"),
        ({"a": np.zeros(1), "b": np.zeros(1)}, "called image; got a, b"),
        ({"image": np.array(["text"])}, "finite real numbers"),
        ({"image": np.array([np.nan])}, "finite real numbers"),
    ],
)
def test_other_arrays_are_refused(int8_file, arrays, message):
    with pytest.raises(ValueError, match=message):
        samples.arrange(int8_file, arrays)
