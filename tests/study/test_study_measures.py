"""What the study measures, against counts by hand."""

import numpy as np
import pytest

import tfbinreg
from examples.study.data import Data
from examples.study.measures import (
    Measures,
    accuracy,
    code_shares,
    final_accuracies,
    low_bit_codes,
    quantization,
    statistics_batches,
    weights_digest,
)
from tfbinreg.deploy.freeze import integer_codes


class Constant:
    """Names every image class 1, and wants inputs from 0 to 1."""

    def predict_on_batch(self, inputs):
        assert inputs.dtype == np.float32 and inputs.max() <= 1.0
        return np.tile([[0.1, 0.7, 0.2]], (len(inputs), 1))


def test_accuracy_counts_over_all_batches():
    labels = np.zeros(1203, int)
    labels[[0, 501, 1202]] = 1
    images = np.full((1203, 2, 2, 1), 255, np.uint8)
    assert accuracy(Constant(), (images, labels)) == pytest.approx(100 * 3 / 1203)


def test_codes_are_those_that_are_deployed(make_trained):
    model = make_trained()
    wanted = [tensor for tensor in integer_codes(model).values() if tensor.bits < 8]
    codes = np.concatenate([np.abs(tensor.codes).ravel() for tensor in wanted])  # signs may turn
    found = low_bit_codes(model)
    assert sorted(np.abs(found)) == sorted(codes)
    shares = code_shares(model)
    assert shares == {str(c): np.mean(found == c) for c in (-2, -1, 0, 1)}


def test_what_no_file_has_is_told(trained_net, float_net):
    assert quantization(trained_net, {"labels": "real"})["notes"]["labels"] == "real"
    model = tfbinreg.quantize_apply(float_net, tfbinreg.recipes.weights_only(2))
    assert "is not on a grid" in quantization(model, {})["refused"]


def test_flips_are_codes_that_changed_within_the_epoch(make_trained, images, labels):
    model = make_trained()
    measures = Measures((np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, int)))
    measures.set_model(model)
    measures.on_epoch_begin(0)
    logs = {}
    measures.on_epoch_end(0, logs)
    assert logs["flips"] == 0.0
    kernel = next(layer for layer in model.layers if "pointwise" in layer.name).weights[0]
    before = low_bit_codes(model)
    kernel.assign(-kernel)
    measures.on_epoch_end(1, logs)
    assert logs["flips"] == np.mean(low_bit_codes(model) != before) > 0


@pytest.mark.slow
def test_final_accuracies_leave_the_test_rows_alone_unless_asked(make_trained, labels):
    model = make_trained()
    images = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), np.uint8)
    part = images, labels
    batches = statistics_batches(part, 0, 0, augment=True)
    found = final_accuracies(model, Data(part, part, None), False, batches)
    assert {key: list(value) for key, value in found.items()} == {
        "moving": ["choice"],
        "reestimated": ["choice"],
        "reestimated_plain": ["choice"],
        "deployed": ["choice"],
    }
    again = final_accuracies(model, Data(part, part, part), True, batches)
    assert list(again["moving"]) == ["choice", "test"]


def test_statistics_come_from_images_as_in_training():
    images = np.random.default_rng(0).integers(1, 256, (250, 8, 8, 3), np.uint8)
    part = images, np.arange(250)
    plain, cropped = (statistics_batches(part, 3, 7, augment=own) for own in (False, True))
    assert [len(classes) for _, classes in cropped] == [100, 100]
    for (inputs, classes), (moved, same) in zip(plain, cropped, strict=True):
        np.testing.assert_array_equal(inputs, images[classes] / np.float32(255))
        np.testing.assert_array_equal(classes, same)
        assert np.any(moved == 0)  # the border
    assert len(statistics_batches((images[:30], part[1][:30]), 3, 7, augment=True)) == 1


def test_a_digest_notices_the_last_bit(make_net):
    model = make_net()
    before = weights_digest(model.get_weights())
    weight = model.weights[0]
    value = weight.numpy()
    value.flat[0] = np.nextafter(value.flat[0], np.float32(9))
    weight.assign(value)
    assert weights_digest(model.get_weights()) != before
