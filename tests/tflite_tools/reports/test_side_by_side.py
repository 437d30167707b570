import re

import pytest
from test_page import text_of

from tflite_tools.checks.verdict import Accuracy
from tflite_tools.reports import side_by_side_page
from tflite_tools.reports.side_by_side import (
    C_BYTES,
    FILE_BYTES,
    NO_ACCURACY,
    RAM,
    side_by_side,
    told_percent,
)


def shares(*percents, runner="LiteRT"):
    return [(Accuracy(runner, "head", percent / 100),) for percent in percents]


@pytest.fixture
def models(canonical):
    """The packable net at 2, 3 and 4 bits."""
    return {f"w{bits}.tflite": canonical(bits, True) for bits in (2, 3, 4)}


def test_layers_have_their_bits_and_bytes(models):
    found = side_by_side(models)
    assert found.compared == (0, 1, 2)
    rows = {row[0].name: row for row in found.layers}
    assert [one.width for one in rows["conv"]] == ["2 bits", "3 bits", "4 bits"]
    assert [one.code_bytes for one in rows["conv"]] == [
        rows["conv"][0].count * bits // 8 for bits in (2, 3, 4)
    ]
    assert {one.width for one in rows["first"]} == {"8 bits"}
    for index, file in enumerate(found.files):
        column = [row[index] for row in found.layers]
        total, count = sum(one.code_bytes for one in column), sum(one.count for one in column)
        assert file.code_bytes == total
        assert file.average_bits == pytest.approx(8 * total / count, rel=1e-3)
        assert file.weight_bytes == count and file.c_bytes > total and not file.c_refused


def test_files_of_other_layers_are_left_out(models, int8_file, float_file):
    found = side_by_side({**models, "residual": int8_file})
    assert found.compared == (0, 1, 2) and len(found.layers[0]) == 3
    text = text_of(side_by_side_page.page(found))
    assert "Their layers have other names, or none: D." in text
    alone = side_by_side({"a": int8_file, "b": float_file})
    assert alone.compared == alone.layers == ()
    assert "No two files have layers of the same names." in text_of(side_by_side_page.page(alone))


def test_only_differences_of_cards_are_shown(models, float_file):
    found = side_by_side({**models, "float": float_file})
    assert found.carded == (0, 1, 2)
    assert found.card["weights.average_bits"] == tuple(
        model.card["weights"]["average_bits"] for model in models.values()
    )
    assert "method" not in found.card
    text = text_of(side_by_side_page.page(found))
    assert "Without a card: D." in text and "weights.average_bits" in text
    same = side_by_side({"a": models["w2.tflite"], "b": models["w2.tflite"]})
    assert same.card == {}
    assert "The cards of all that have one say the same." in text_of(side_by_side_page.page(same))
    few = side_by_side({"a": models["w2.tflite"], "float": float_file})
    assert "Fewer than two files have a card." in text_of(side_by_side_page.page(few))


def test_the_picture_has_what_no_other_file_betters(models):
    accuracy = dict(zip(models, shares(80, 90, 85), strict=True))
    picture = side_by_side(models, accuracy).picture
    assert (picture.across, picture.up) == (C_BYTES, "accuracy in LiteRT, %")
    assert [percent for _, percent in picture.points.values()] == pytest.approx([80, 90, 85])
    assert picture.best == (0, 1)
    found = side_by_side(models, dict(zip(models, shares(80, 80, 80), strict=True)))
    assert found.picture.best == (0,)


def test_the_runtime_that_ran_most_files_is_drawn(models):
    lite, micro = shares(80, 90, 85), shares(79, 89, 84, runner="TFLM")
    lite[2] = (Accuracy("LiteRT", "head", None, "it needs tables"),)
    accuracy = {name: (*one, *other) for name, one, other in zip(models, lite, micro, strict=True)}
    found = side_by_side(models, accuracy)
    assert found.picture.up == "accuracy in TFLM, %" and len(found.picture.points) == 3
    text = text_of(side_by_side_page.page(found))
    assert "C was not measured in LiteRT: it needs tables" in text
    assert re.search(r"accuracy in LiteRT accuracy in TFLM made for A w2.tflite .* 79.00 %", text)


def test_without_accuracy_it_is_ram_and_said_so(models, int8_file, float_file):
    found = side_by_side(models)
    assert found.no_picture == NO_ACCURACY
    assert (found.picture.up, found.picture.more_is_better) == (RAM, False)
    assert [ram for _, ram in found.picture.points.values()] == [
        file.c_arena_bytes for file in found.files
    ]
    text = text_of(side_by_side_page.page(found))
    assert "Bytes and RAM" in text and NO_ACCURACY in text
    none = side_by_side({"a": float_file, "b": int8_file})
    assert none.picture is None and "no RAM to compare either" in none.no_picture
    text = text_of(side_by_side_page.page(none))
    assert "no RAM to compare either" in text
    assert "A cannot be written as C. The file has no tfbinreg manifest" in text


def test_files_that_cannot_be_c_are_drawn_by_their_size(models, canonical):
    models["int4"] = canonical(2, True, "int4")
    models["other"] = canonical(2, True, "float32")
    accuracy = dict(zip(models, shares(80, 90, 85, 80, 70), strict=True))
    found = side_by_side(models, accuracy)
    assert found.picture.across == FILE_BYTES
    assert found.picture.points[4] == (found.files[4].size, pytest.approx(70.0))
    del accuracy["int4"], accuracy["other"]
    found = side_by_side(models, accuracy)
    assert found.picture.across == C_BYTES and sorted(found.picture.points) == [0, 1, 2]
    assert "Not in the picture, for that is not known: D, E." in text_of(
        side_by_side_page.page(found)
    )


@pytest.mark.parametrize(
    ("text", "percent"),
    [("91.2 % on test", 91.2), ("86%", 86.0), ("0.91", None), ("good", None), (None, None)],
)
def test_percents_on_cards(text, percent):
    assert told_percent(text) == percent
    assert told_percent("912 %") is None


def test_the_page_escapes_names_and_has_many_letters(models):
    net = models["w2.tflite"]
    many = {f"<b>{index}": net for index in range(28)}
    page = side_by_side_page.page(side_by_side(many))
    assert "<b>0" not in page and "&lt;b&gt;0" in page
    text = text_of(page)
    assert "28 files side by side" in text and " AB <b>27 " in text
    assert "prefers" not in page and "name='viewport'" in page and "color-scheme" in page
