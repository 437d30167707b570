import html.parser
import re

import pytest

from tflite_tools.c import generate
from tflite_tools.checks.compare import TensorRow
from tflite_tools.checks.rounding import Rounding
from tflite_tools.checks.verdict import Accuracy, Check, Report, Verdict
from tflite_tools.reports import page as pages
from tflite_tools.reports import sizes
from tflite_tools.reports.describe import describe

VOID = {"meta", "rect", "line", "br"}


class Balanced(html.parser.HTMLParser):
    """Fails where a tag is not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def text_of(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return " ".join(" ".join(parser.text).split())


def test_says_what_is_in_the_file(int8_file):
    text = text_of(pages.page(int8_file, describe(int8_file), title="net.tflite"))
    for part in ("Quantization card", "2 at 2 bits", "2 at 8 bits", "first and last layer",
                 "8 and 8 bits", "kernels: 4 per output channel", "folded after training", "conv",
                 "Not verified", "not recorded", f"{len(int8_file.data)} bytes"):  # fmt: skip
        assert part in text, part


def test_loads_nothing_from_elsewhere(int8_file):
    page = pages.page(int8_file, describe(int8_file), title="net")
    assert not re.search(r"(src|href|url)\s*[=(]", page)
    assert set(re.findall(r"https?://[^'\"]*", page)) <= {"http://www.w3.org/2000/svg"}


def test_shows_the_checks_and_the_card(int8_file):
    checks = (
        Check("codes", Verdict.PASSED, "all equal"),
        Check("agreement", Verdict.FAILED, "3 < 4 & more"),
    )
    page = pages.page(
        int8_file,
        describe(int8_file),
        title="net",
        verification=Report(checks),
        card={"data": "CIFAR-10", "epochs": "30"},
    )
    text = text_of(page)
    for part in ("all equal", "3 < 4 & more", "CIFAR-10", "30"):
        assert part in text
    assert "class='failed'>failed" in page and "Not verified" not in text
    assert "Verification FAILED: agreement. What to do stands beside the checks." in text
    assert "3 < 4 & more What to do: Normalization and biases are" in text
    assert text.count("What to do:") == 1


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (Verdict.PASSED, "Verified: 2 checks passed."),
        (Verdict.WARNING, "Verified: 1 check passed, with a warning: tflm."),
        (Verdict.SKIPPED, "Verified: 1 check passed, skipped: tflm."),
    ],
)
def test_the_verdict_comes_first(int8_file, second, told):
    checks = (Check("codes", Verdict.PASSED, "all equal"), Check("tflm", second, "why"))
    accuracy = (Accuracy("Keras", "out", 0.875), Accuracy("C", "out", None, "no compiler"))
    plain = {"model": int8_file, "description": describe(int8_file), "title": "net"}
    text = text_of(pages.page(**plain, verification=Report(checks, accuracy)))
    assert 0 < text.index(told) < text.index("Layers")
    assert "accuracy Keras, out: 87.50 %" in text
    assert "accuracy C, out: not measured, no compiler" in text
    assert "Not verified" in text_of(pages.page(**plain))


def test_sizes_inputs_and_outputs_stand_at_the_top(int8_file):
    text = text_of(pages.page(int8_file, describe(int8_file), title="net"))
    top = text[: text.index("Layers")]
    assert re.search(r"weights \d+ bytes as float32, \d+ as int8, \d+ at their bits: 1/\d", top)
    assert re.search(r"input \w+: int8, 1 x [\dx ]+ \(\d+ values\), real = [\d.]+ \* ", top)
    assert re.search(
        r"output \w+: int8, 1 x 3 \(3 values\), real = 0\.00390625 \* \(stored \+ 128\)", top
    )


def test_layers_tell_scales_and_codes_as_they_are(int8_file):
    text = text_of(pages.page(int8_file, describe(int8_file), title="net"))
    assert re.search(r"2 bits \d of 4, -2 to 1 per (channel, \d+|tensor) ", text)


def test_fits_a_narrow_window_and_dark_colours(int8_file):
    page = pages.page(int8_file, describe(int8_file), title="net")
    assert "name='viewport'" in page and "color-scheme: light dark" in page
    assert page.count("<table") == page.count("<div class='wide'><table")


def test_shows_every_format_and_why_one_is_missing(int8_file, monkeypatch):
    monkeypatch.setattr(generate, "LOWERINGS", {})
    found = sizes.measure(int8_file)
    page = pages.page(int8_file, describe(int8_file), title="net", sizes=found)
    text = text_of(page)
    made = [entry for entry in found.formats if not entry.refused]
    assert "c: not made. Cannot write the file as C: - CONV_2D 'conv" in text
    for entry in made:
        assert f"\N{BLACK SQUARE} {entry.name}" in text
        assert str(entry.total) in text
    assert page.count("<line ") == 2 * (len(found.layers) + 1)  # int8 and packed, with the sum
    assert "Bytes of the weights. The bars are the limits" not in text


def test_shows_how_the_runtimes_differ(int8_file):
    rows = (TensorRow("conv_relu", 0.0125, 2.0, 0.01), TensorRow("<head>", 0.0, 0.0, 0.0))
    plain = {"model": int8_file, "description": describe(int8_file), "title": "net"}
    text = text_of(pages.page(**plain, rounding=Rounding(rows, 200)))
    assert "LiteRT against TFLM on 200 inputs" in text and "rounds a sum twice" in text
    assert "conv_relu 0.0125 2 1.00 %" in text and "<head> 0.0000 0 0.00 %" in text
    assert "Not compared: TFLM is away." in text_of(
        pages.page(**plain, rounding=Rounding((), 0, "TFLM is away."))
    )
    assert "Rounding Not compared." in text_of(pages.page(**plain))


def test_names_cannot_become_markup(int8_file):
    page = pages.page(int8_file, describe(int8_file), title="<script>x</script>")
    assert "<script>" not in page


def test_a_file_without_a_manifest(float_file):
    text = text_of(pages.page(float_file, describe(float_file), title="float"))
    assert "the file has no manifest" in text


def test_methods_are_named_with_their_options():
    recipe = {
        "method": "tqt",
        "penalties": ["bin_regularization", "msqe"],
        "options": {"msqe": {"detach_step": False}},
        "rules": [{"layer": "head", "method": "lsq"}],
    }
    assert pages._methods(recipe) == "tqt, lsq, bin_regularization, msqe (detach_step=False)"
    assert pages._methods({}) == "lsq, bin_regularization"  # of version 0.1.0
