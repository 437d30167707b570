"""Layers that are used several times: one kernel with one step, and a grid for each place."""

import keras as keras_3
import numpy as np
import pytest
import tf_keras as keras
from exactness import assert_exact
from quick import slow
from random_nets import randomize

import tfbinreg
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.network.graph import trace
from tfbinreg.training.batch_norm import reestimate_batch_norm

layers = keras.layers
OWN = {"tf_keras": keras, "Keras 3": keras_3}
BOTH = pytest.mark.parametrize("own", [OWN["tf_keras"], *slow(OWN["Keras 3"])])


def detector(own, *, norm=True):
    """A head that two levels of a backbone share, and a convolution with two normalizations."""
    layers = own.layers
    image = own.Input((8, 8, 3), name="image")
    near = layers.Conv2D(6, 3, padding="same", activation="relu", name="near")(image)
    far = layers.Conv2D(6, 3, 2, padding="same", activation="relu", name="far")(near)
    conv = layers.Conv2D(8, 3, padding="same", name="conv")
    between = layers.BatchNormalization(name="norm") if norm else layers.ReLU()
    slopes = layers.PReLU(shared_axes=[1, 2], name="slopes", alpha_initializer="normal")
    last = layers.Dense(4, activation="swish", name="last")
    outputs = [last(slopes(layers.ReLU()(between(conv(level))))) for level in (near, far)]
    if norm:
        outputs.append(layers.ReLU()(layers.BatchNormalization(name="other")(conv(far))))
    model = own.Model(image, outputs, name="detector")
    randomize(model, 1)
    return model


@pytest.fixture(scope="module")
def quantized(images):
    return tfbinreg.quantize_apply(detector(keras), calibration_data=images)


@BOTH
def test_one_kernel_with_one_step_and_a_grid_for_each_place(own, images):
    model = tfbinreg.quantize_apply(detector(own), calibration_data=images)
    assert [site.name for site in kernel_sites(model)] == ["near", "far", "conv", "last"]
    calls = [node for node in trace(model).nodes if node.name.endswith("conv")]
    assert len(calls) == 3 and len({id(node.layer) for node in calls}) == 1
    grids = [layer for layer in model.layers if layer.name.startswith("slopes_grid")]
    assert len(grids) == 2
    file = assert_exact(model, [images])
    kernels = [t for t in file.main.tensors if t.name.startswith("conv") and "kernel" in t.name]
    assert len(kernels) == 3
    assert {t.quantization.scale.tobytes() for t in kernels if t.quantization}
    codes = tfbinreg.integer_codes(model)
    np.testing.assert_array_equal(codes["last"].codes, codes["last_1"].codes)


def test_the_codes_are_in_the_file_once(images):
    sizes = {}
    for shared in (True, False):
        keras.utils.set_random_seed(0)
        wide = [layers.Conv2D(64, 1, name="wide")] * 2
        if not shared:
            wide[1] = layers.Conv2D(64, 1, name="other")
        image = keras.Input((8, 8, 3), name="image")
        x = layers.Conv2D(64, 1, activation="relu", name="first")(image)
        x = wide[1](layers.ReLU()(wide[0](x)))
        model = tfbinreg.quantize_apply(keras.Model(image, x), calibration_data=images)
        tfbinreg.finalize(model)
        sizes[shared] = len(tfbinreg.to_tflite(model))
    assert sizes[True] < sizes[False] - 64 * 64 + 600


def test_the_plan_counts_a_kernel_once():
    rows = tfbinreg.plan(detector(keras)).rows()
    own = [row for row in rows if row["layer"] == "conv"]
    assert [row["parameters"] for row in own] == [6 * 8 * 9, 0, 0]
    assert [row["bytes"] > 0 for row in own] == [True, False, False]
    assert {row["weight_bits"] for row in own} == {8}  # a last kernel at one place is one at all


@pytest.mark.slow
def test_every_place_trains_the_one_kernel(images):
    model = tfbinreg.quantize_apply(detector(keras), calibration_data=images)
    model.compile(keras.optimizers.SGD(0.1), ["mse"] * 3, run_eagerly=True)
    before = model.get_layer("quant_conv").kernels[0].weight.numpy()
    targets = [np.ones((len(images), *shape[1:]), np.float32) for shape in model.output_shape]
    model.fit(images, targets, verbose=0)
    assert np.any(before != model.get_layer("quant_conv").kernels[0].weight.numpy())
    assert_exact(model, [images], with_c=False)


def test_saved_and_loaded_it_stays_one_layer(quantized, images, tmp_path):
    quantized.save(tmp_path / "q.keras")
    loaded = tfbinreg.load_model(tmp_path / "q.keras")
    assert len(loaded.get_layer("quant_conv").inbound_nodes) == 3
    for ours, theirs in zip(loaded(images), quantized(images), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_float_model_inside_shares_it_too(quantized, images):
    plain = tfbinreg.strip_quantization(tfbinreg.quantize_apply(detector(keras)))
    assert len(plain.get_layer("conv").inbound_nodes) == 3
    for ours, theirs in zip(plain(images), detector(keras)(images), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    again = tfbinreg.requantize(quantized, weight_bits=2)
    assert [site.name for site in kernel_sites(again)] == ["near", "far", "conv", "last"]


def test_statistics_of_a_normalization_are_means_over_its_places(images):
    model = detector(keras)
    probe = keras.Model(model.input, [model.get_layer("conv").get_output_at(i) for i in (0, 1)])
    reestimate_batch_norm(model, images, batches=1)
    means = [np.mean(output, axis=(0, 1, 2)) for output in probe(images[:64])]
    own = model.get_layer("norm").moving_mean.numpy()
    np.testing.assert_allclose(own, np.mean(means, axis=0), atol=1e-5)
    assert model.get_layer("norm").momentum == 0.99


def test_signs_stay_where_turning_a_kernel_would_turn_another_place(images):
    model = detector(keras)
    norm = model.get_layer("other")
    norm.gamma.assign(-np.abs(norm.gamma.numpy()) - 0.1)
    normal = tfbinreg.quantize_apply(model, calibration_data=images)
    assert np.all(normal.get_layer("other").gamma.numpy() < 0)
    assert_exact(normal, [images], with_c=False)


def test_folding_is_refused_where_places_would_fold_differently():
    recipe = tfbinreg.Recipe(fold_batch_norm=True)
    with pytest.raises(ValueError, match=r"conv, norm: is used several times.*leave out fold"):
        tfbinreg.quantize_apply(detector(keras), recipe)
    model = tfbinreg.quantize_apply(detector(keras, norm=False), recipe)
    assert type(model.get_layer("quant_conv")).__name__ == "QuantizedKernel"


def test_solvers_refuse_it(images):
    model = tfbinreg.quantize_apply(
        detector(keras), tfbinreg.Recipe(solver="tsq"), calibration_data=images
    )
    with pytest.raises(ValueError, match="solves kernels that are used once, and conv, last of"):
        tfbinreg.solve(model, images, verbose=0)


@pytest.mark.slow
def test_blocks_end_elsewhere(images):
    plain = detector(keras)
    model = tfbinreg.quantize_apply(plain, weight_bits=2, calibration_data=images)
    losses = tfbinreg.train_blocks(model, plain, images, steps=2, block_size=1, verbose=0)
    assert [loss.kernels for loss in losses] == [("near",), ("far",), ("conv", "last")]


def test_different_ranks_are_refused():
    dense = layers.Dense(3, name="dense")
    image = keras.Input((4, 3), name="image")
    outputs = dense(image), dense(layers.GlobalMaxPooling1D()(image))
    with pytest.raises(ValueError, match="dense: used several times, on tensors of different rank"):
        tfbinreg.plan(keras.Model(image, outputs))


def test_inside_and_outside_of_time_distributed_it_is_one_layer(images):
    rows, row = keras.Input((4, 3)), keras.Input((5, 3))
    dense = layers.Dense(3, name="dense")
    plan = tfbinreg.plan(
        keras.Model([rows, row], [layers.TimeDistributed(dense)(rows), dense(row)])
    )
    assert [r["parameters"] for r in plan.rows() if r["kind"] == "Conv2D"] == [9, 0]


def test_weights_that_two_layers_share_are_refused():
    first, second = layers.Conv2D(3, 3, name="first"), layers.Conv2D(3, 3, 2, name="second")
    image = keras.Input((8, 8, 3))
    outputs = [first(image), second(image)]
    second.kernel, second.bias = first.kernel, first.bias
    with pytest.raises(ValueError, match="first: has the weights of 'second', which is configured"):
        tfbinreg.plan(keras.Model(image, outputs))
