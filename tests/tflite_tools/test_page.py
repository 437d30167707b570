import html.parser
import re

import pytest

from tflite_tools import page as pages
from tflite_tools.describe import describe
from tflite_tools.verdict import Check, Report, Verdict

VOID = {"meta", "rect"}


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
                 "8 and 8 bits", "per output channel", "folded after training", "conv",
                 "Not verified", "not stated", f"{len(int8_file)} bytes"):  # fmt: skip
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


def test_names_cannot_become_markup(int8_file):
    page = pages.page(int8_file, describe(int8_file), title="<script>x</script>")
    assert "<script>" not in page


def test_a_file_without_a_manifest(float_file):
    text = text_of(pages.page(float_file, describe(float_file), title="float"))
    assert "the file has no manifest" in text


def test_unknown_fields_of_a_card():
    with pytest.raises(ValueError, match="A card has no 'epoch': use data, epochs"):
        pages.check_card({"epoch": "3"})
