"""Generated C read back: whole folders only, and exactly the packed weights."""

import re

import numpy as np
import pytest

from tflite_tools.c import generate, source_folder
from tflite_tools.checks.verdict import Verdict


@pytest.fixture(scope="module")
def sources(two_bits):
    return generate.generate(two_bits, name="net").files


@pytest.fixture
def folder(sources, tmp_path):
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_files_and_name_are_read_back(folder, sources):
    (folder / "other.c").write_text("int other;\n")
    (folder / "notes.txt").write_text("mine")
    found = source_folder.read(folder)
    assert (found.name, found.files) == ("net", sources)
    assert found.source == sources["net.c"]


@pytest.mark.parametrize("name", ["net.h", "main.c", generate.RUNTIME_HEADER])
def test_every_file_is_needed(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"has no {name}, which convert writes beside net\.c"):
        source_folder.read(folder)


def test_exactly_one_network_is_needed(folder, sources, tmp_path):
    (folder / "more.c").write_text(sources["net.c"].replace("/* net:", "/* more:"))
    with pytest.raises(ValueError, match=r"must hold one network .*, holds those of more, net\."):
        source_folder.read(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"holds none\."):
        source_folder.read(empty)


def test_unreadable_files_are_errors(folder):
    (folder / "net.h").unlink()
    (folder / "net.h").mkdir()
    with pytest.raises(ValueError, match=r"has no net\.h"):
        source_folder.read(folder)
    (folder / "x.c").mkdir()
    with pytest.raises(ValueError, match=r"Cannot read '.*x\.c': Is a directory"):
        source_folder.read(folder)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_weights_are_those_of_the_file(canonical, bits):
    model = canonical(bits, True)
    source = generate.generate(model).files["model.c"]
    check = source_folder.check_codes(source, model)
    assert check.verdict is Verdict.PASSED
    assert check.figures["weights"] == sum(np.prod(e.shape) for e in model.manifest.layers)
    assert {bits, 8} <= {packed.bits for packed in source_folder.weights(source).values()}


def edited(text, pattern, replacement):
    changed = re.sub(pattern, replacement, text, count=1)
    assert changed != text
    return changed


def _next_code(match):
    return f"{match[1]}{int(match[2]) ^ 1}"


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"(weights_0\[\d+\] = \{\s*)(\d+)", _next_code, "first: 1 of 432 weights differ"),
        (r"(\.bits = 2, \.prescale = )\d+", r"\g<1>16", "weights differ"),
        (r"\.bits = 2", ".bits = 4", "256 bytes do not hold 1024 values of 4 bits"),
        (r"\.bits = 2", ".bits = 5", "has weights of 5 bits"),
        (r"\.bits = 2", ".bits = b", "has no weights, bits or pre-scale"),
        (r"(weights_0\[)\d+", r"\g<1>9", "weights_0 does not hold 9 bytes"),
        (r"(weights_0\[\d+\] = \{\s*)\d+", r"\g<1>256", "does not hold"),
        (r"static const uint8_t weights_0", "static const uint8_t other_0", "has no weights"),
        (r"tfb_conv op_0 ", "tfb_conv op_90 ", "no weights in the C; op_90: is no layer"),
    ],
)  # fmt: skip
def test_changed_weights_are_found(sources, two_bits, pattern, replacement, message):
    check = source_folder.check_codes(edited(sources["net.c"], pattern, replacement), two_bits)
    assert check.verdict is Verdict.FAILED
    assert message in check.detail


CODED = """
static const uint8_t weights_0[1] = {9};
static const int8_t data_1[2] = {-3, 7};
static const tfb_conv op_0 = {.weights = weights_0, .bits = 8, .prescale = 4};
static const tfb_coded coded_0 = {.conv = &op_0, .levels = data_1, .widths = 0, .bits = 1};
"""


def test_coded_weights_are_read_with_their_table():
    packed = source_folder.weights(CODED)[0]
    assert packed.codes((2, 2)).tolist() == [[7, -3], [-3, 7]]
    assert (packed.size, packed.widths, packed.prescale) == (3, {1}, 4)
    mixed = CODED.replace(".levels = data_1, .widths = 0", ".levels = 0, .widths = data_1")
    packed = source_folder.weights(
        mixed.replace("int8_t data_1[2] = {-3, 7}", "uint8_t data_1[2] = {0, 2}")
    )[0]
    assert packed.codes((2, 2)).tolist() == [[0, 0], [1, -2]]
    assert packed.widths == {0, 2}
    each = CODED.replace("[2] = {-3, 7}", "[4] = {-3, 7, -5, 9}")
    packed = source_folder.weights(each.replace(".bits = 1}", ".bits = 1, .stride = 2}"))[0]
    assert packed.codes((2, 2)).tolist() == [[7, -3], [-5, 9]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (".levels = data_1", ".levels = data_9", "have no table"),
        (".bits = 1", ".bits = x", "have no table"),
        (".bits = 1", ".bits = 1, .stride = x", "have no table"),
        ("{-3, 7}", "{-3, 128}", "data_1 does not hold 2 bytes"),
    ],
)
def test_coded_weights_without_a_table_are_refused(old, new, message):
    with pytest.raises(ValueError, match=message):
        source_folder.weights(CODED.replace(old, new))
