"""Grids that are not evenly spaced, from training to every file format."""

import grid_methods
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.deploy.freeze import freeze
from tfbinreg.layers.sites import kernel_sites
from tflite_tools.schema.codes import read_codes
from tflite_tools.schema.contents import load

WAYS = {
    "tensor": {},
    "channel": {"per_channel": True},
    "folded": {"fold_batch_norm": True, "per_channel": True},
    "bias": {"fold_batch_norm": True, "per_channel": True, "bias_bits": 8},
    "int4": {"stored_bits": 4, "per_channel": True},
}
QUICK = (
    ("codebook", "tensor"),
    ("lopsided", "channel"),
    ("sign", "int4"),
    ("channels", "channel"),
    ("channels", "bias"),
)
CASES = [
    pytest.param((kind, way), marks=() if (kind, way) in QUICK else pytest.mark.slow)
    for kind in grid_methods.KINDS
    for way in WAYS
    if (kind, way) != ("channels", "tensor")  # which have to have channels
]


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(32, 6, 6, 2)).astype(np.float32), random.integers(0, 3, 32)


def make(kind, **options):
    """A small net, calibrated and trained; its normalization turns two channels round."""
    tfbinreg.register_method(grid_methods.METHOD)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    signs = np.array([1.0, -1.0, 0.5, 0.0, -2.0, 1.0, 1.0, -0.5, 1.0], np.float32)
    net = keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(9, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="depthwise"),
            layers.Conv2DTranspose(8, 2, activation="relu", name="transpose"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(4, name="head"),
        ],
        name="net",
    )
    net.get_layer("norm").gamma.assign(signs)
    recipe = tfbinreg.Recipe(
        weight_bits=4,
        first_last_bits=None,
        method="straight_through",
        options={"straight_through": {"kind": kind}},
        **options,
    )
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=data()[0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    callback = tfbinreg.BinRegularization("joint", strength=0.1)
    model.fit(*data(), 16, epochs=2, verbose=0, callbacks=[callback])
    return model


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    """(kind, way, model as trained)."""
    kind, way = request.param
    return kind, way, make(kind, **WAYS[way])


def test_codes_are_levels_and_training_computes_their_values(case):
    kind, _, model = case
    for site in kernel_sites(model):
        grid, codes = site.grid(), site.codes()
        quantized = site.quantizer(tf.convert_to_tensor(site.latent), True, site.variables)
        np.testing.assert_array_equal(quantized, grid.values(codes))
        np.testing.assert_array_equal(codes, grid.codes(np.asarray(site.latent)))
        if kind in grid_methods.LEVELS:
            assert set(np.unique(codes)) <= set(grid_methods.LEVELS[kind])
        else:
            rows = np.moveaxis(codes, grid.axis, 0)
            widths = grid_methods.channel_bits(len(rows), 4)
            assert grid.channel_bits == tuple(widths)
            for row, bits in zip(rows, widths, strict=True):
                assert {0: {0}, 1: {-1, 1}}.get(bits, set(row.ravel())) >= set(row.ravel())
                assert np.abs(row).max() <= 2**bits / 2


def test_the_file_holds_the_codes_and_computes_the_same(case):
    kind, way, model = case
    tfbinreg.finalize(model, data()[0])
    file = tfbinreg.to_tflite(model)  # which compares outputs with LiteRT's
    codes, entries = read_codes(file), {e.name: e for e in load(file).manifest.layers}
    for name, kernel in freeze(model).trained_kernels().items():
        np.testing.assert_array_equal(codes[name], kernel.codes)
        entry = entries[name]
        assert (entry.levels, entry.channel_bits) == (kernel.levels, kernel.channel_bits)
        assert entry.levels == grid_methods.LEVELS.get(kind)
        assert (kind != "channels") == (entry.channel_bits is None)
        largest = 8 if way == "int4" else 127
        assert np.abs(codes[name].astype(int)).max() * entry.prescale <= largest
