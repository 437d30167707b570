"""Grids that are not evenly spaced, from training to every file format."""

import dataclasses
import io

import grid_methods
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from quick import slow

import tfbinreg
from tfbinreg.deploy.freeze import freeze
from tfbinreg.deploy.quantization_card import quantization_card
from tfbinreg.layers.sites import kernel_sites
from tflite_tools.c import source_folder, verify_folder
from tflite_tools.checks import derived_file, static, trained_model
from tflite_tools.formats import build
from tflite_tools.reports import describe, flash, report_text, sizes
from tflite_tools.running import samples
from tflite_tools.schema import contents, flatbuffer, manifest
from tflite_tools.schema.codes import codes_of, layer_codes

WAYS = {
    "tensor": {},
    "channel": {"per_channel": True},
    "folded": {"fold_batch_norm": True, "per_channel": True},
    "bias": {"fold_batch_norm": True, "per_channel": True, "bias_bits": 8},
    "int4": {"stored_bits": 4, "per_channel": True},
}
LEVELS = {**grid_methods.LEVELS, "one_bit": (-1, 1)}
# The last two are LSQ's own, asked for by a recipe.
KINDS = (*grid_methods.KINDS, "one_bit", "rules")
BY_CHANNEL = ("channels", "rules")
QUICK = (("sign", "int4"), ("channels", "bias"), ("codebooks", "channel"))
CASES = [
    pytest.param((kind, way), marks=() if (kind, way) in QUICK else pytest.mark.slow)
    for kind in KINDS
    for way in WAYS
    # Their methods have to be asked for channels.
    if (kind, way) not in (("channels", "tensor"), ("codebooks", "tensor"))
]


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(32, 6, 6, 2)).astype(np.float32), random.integers(0, 3, 32)


def asked(kind):
    """The fields of a recipe for grids of a kind."""
    if kind == "one_bit":
        return {"weight_bits": 1}
    if kind == "rules":
        sizes = {"conv": 9, "depthwise": 9, "transpose": 16, "head": 4}
        return {
            "rules": [
                tfbinreg.Rule(layer=name, weight_bits=grid_methods.channel_bits(size, 4))
                for name, size in sizes.items()
            ]
        }
    return {"method": "straight_through", "options": {"straight_through": {"kind": kind}}}


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
            layers.Conv2DTranspose(16, 2, activation="relu", name="transpose"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(4, name="head"),
        ],
        name="net",
    )
    net.get_layer("norm").gamma.assign(signs)
    fields = {"weight_bits": 4, "first_last_bits": None, **asked(kind), **options}
    recipe = tfbinreg.Recipe(**fields)
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=data()[0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    callback = tfbinreg.BinRegularization("joint", strength=0.1)
    model.fit(*data(), 16, epochs=2, verbose=0, callbacks=[callback])
    return model


def with_weight(file, layer, channel, code):
    """The file with another first code of a channel of a depthwise layer, and a SHA-256 to it."""
    container = flatbuffer.read(file.data)
    header = manifest.find(container)
    (entry,) = (entry for entry in header.layers if entry.name == layer)
    tensors = container.subgraphs[0].tensors
    (tensor,) = (t for t in tensors if flatbuffer.text(t.name) == entry.tensor)
    values = flatbuffer.constant(container, tensor).copy()
    values[0, 0, 0, channel] = code * entry.prescale
    flatbuffer.set_constant(container, tensor, values)
    digest = manifest.codes_digest(layer_codes(contents.written(container), entry))
    changed = dataclasses.replace(entry, sha256=digest)
    layers = tuple(changed if own is entry else own for own in header.layers)
    text = dataclasses.replace(header, layers=layers).to_json().encode()
    flatbuffer.set_metadata(container, manifest.METADATA_NAME, text)
    return contents.written(container)


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
        if kind in LEVELS:
            assert set(np.unique(codes)) <= set(LEVELS[kind])
        elif kind == "codebooks":
            rows = np.moveaxis(codes, grid.axis, 0)
            for row, levels in zip(rows, grid_methods.channel_levels(len(rows)), strict=True):
                assert set(row.ravel()) <= set(levels)
        else:
            rows = np.moveaxis(codes, grid.axis, 0)
            widths = grid_methods.channel_bits(len(rows), 4)
            assert grid.channel_bits == tuple(widths)
            for row, bits in zip(rows, widths, strict=True):
                assert {0: {0}, 1: {-1, 1}}.get(bits, set(row.ravel())) >= set(row.ravel())
                assert np.abs(row).max() <= 2**bits / 2


@pytest.fixture(scope="module")
def file(case):
    """The case's int8 file, made of the finalized model; its outputs are compared with LiteRT's."""
    _, _, model = case
    tfbinreg.finalize(model, data()[0], target="tflm")
    return contents.load(tfbinreg.to_tflite(model))


def test_the_file_holds_the_codes(case, file):
    kind, way, model = case
    codes, entries = codes_of(file), {e.name: e for e in file.manifest.layers}
    for name, kernel in freeze(model).trained_kernels().items():
        np.testing.assert_array_equal(codes[name], kernel.codes)
        entry = entries[name]
        assert (entry.levels, entry.channel_bits) == (kernel.levels, kernel.channel_bits)
        assert entry.channel_levels == kernel.channel_levels
        assert (kind == "codebooks") == (entry.channel_levels is not None)
        assert entry.levels == LEVELS.get(kind)
        assert (kind not in BY_CHANNEL) == (entry.channel_bits is None)
        largest = 8 if way == "int4" and kind != "codebooks" else 127
        assert np.abs(codes[name].astype(int)).max() * entry.prescale <= largest


def test_the_file_is_verified(case, file):
    model = case[2]
    inputs = samples.seeded(file, samples=50, seed=0)
    (images,) = inputs.values()
    codes = {name: coded.codes for name, coded in tfbinreg.integer_codes(model).items()}
    predictions = {"head": model.predict(images, verbose=0)}
    reference = trained_model.Reference(codes, predictions, target="tflm", exact=True)
    report = trained_model.verify(file, reference=reference, inputs=inputs)
    verdicts = {check.name: check.verdict.value for check in report.checks}
    assert (verdicts["codes"], verdicts["levels"], verdicts["agreement"]) == ("passed",) * 3


@pytest.mark.parametrize(
    "options",
    [
        {"format": "c"},
        *slow(
            {"format": "lut"}, {"format": "int4"}, {"slim": True}, {"format": "lut", "slim": True}
        ),
    ],
    ids=str,
)
def test_formats_are_the_canonical_network(case, file, options):
    """`build` compares codes, and outputs in every runtime, before it returns."""
    kind, _, _ = case
    made = build.build(file, build.Options(**options), name="net")
    if options.get("format") == "c":
        files = {path: text.decode() for path, text in made.files.items()}
        folder, source = source_folder.Folder("net", files), files["net.c"]
        report = verify_folder.verify_folder(folder, file, samples_count=20)
        assert {check.name: check.verdict.value for check in report.checks} | {"litert": ""} == {
            "codes": "passed", "sources": "passed", "operators": "passed", "tflm": "passed",
            "litert": "",
        }  # fmt: skip
        widths = [own.widths for own in source_folder.weights(source).values()]
        most = {"sign": 1, "one_bit": 1, "lopsided": 3, "codebook": 3}
        assert max(map(max, widths)) <= most.get(kind, 4)
        assert kind == "lopsided" or "tfb_coded_depthwise" in source
    elif "slim" not in options:
        assert derived_file.verify_variant(made.model, file, samples_count=20).passed
        read = codes_of(made.model)
        for name, codes in codes_of(file).items():
            np.testing.assert_array_equal(read[name], codes)


def test_figures_are_told_in_plain_words(case, file):
    kind, _, _ = case
    words = {
        "codebook": "codebook of 5 levels",
        "lopsided": "codebook of 4 levels",
        "sign": "1 bit",
        "channels": "bits per channel 0-4, 1 pruned",
        "codebooks": "codebook per channel of 0-2 bits, 1 pruned",
    }
    words |= {"one_bit": words["sign"], "rules": words["channels"]}
    description = describe.describe(file)
    printed = io.StringIO()
    report_text.print_description(description, report_text.console(printed))
    assert words[kind] in " ".join(printed.getvalue().split())
    card = quantization_card(freeze(case[2]))["weights"]
    assert sum(card["bits"].values()) == sum(
        np.prod(weight.shape) for weight in description.weights
    )
    assert card["average_bits"] == pytest.approx(
        sum(weight.code_bits for weight in description.weights) / sum(card["bits"].values()), 1e-3
    )
    head = next(weight for weight in description.weights if weight.layer == "head")
    assert head.width == words[kind]
    bits = {"codebook": 192, "lopsided": 128, "sign": 64, "one_bit": 64, "codebooks": 80}
    assert head.code_bits == bits.get(kind, 112)
    measured = {entry.name: entry for entry in sizes.measure(file).formats}
    assert measured["c"].refused == "" and len(measured["c"].layers) == 4
    assert measured["c"].left_out == sum(weight.left_out for weight in description.weights)
    assert measured["c"].left_out >= 3  # a factor of the normalization is 0, two filters read it
    assert flash.count(file).weights >= description.packed_weight_bytes


def test_a_code_off_its_grid_fails(case, file):
    """Its SHA-256 is the manifest's: only the grid tells."""
    kind, _, _ = case
    # A level that the codebook lacks, a zero among signs, a weight in a pruned channel.
    wrong = {
        "codebook": (0, 3),
        "lopsided": (0, 2),
        "sign": (0, 0),
        "one_bit": (0, 0),
        "codebooks": (-1, 44),
    }
    channel, code = wrong.get(kind, (-7, 1))
    assert static.check_codes(file, None).verdict.value == "passed"
    broken = with_weight(file, "depthwise", channel, code)
    check = static.check_codes(broken, None)
    assert (check.verdict.value, check.layers) == ("failed", ("depthwise",))
    assert "1 of 162 codes do not fit the" in check.detail
