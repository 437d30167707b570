import pytest

from tflite_tools.schema import card


def test_cards_go_through_text():
    own = {"weights": {"bits": {"2": 5}}, "notes": {}}
    assert card.parse(card.to_json(own)) == own


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', "{}", "[" * 100_000])
def test_what_is_no_card_is_refused(text):
    with pytest.raises(ValueError, match="quantization card in the file cannot be read"):
        card.parse(text)


def test_differences_are_by_dotted_names():
    first = {"method": "lsq", "weights": {"bits": {"2": 5}, "zeros": 1}, "updates": []}
    second = {"method": "tqt", "weights": {"bits": {"2": 5, "8": 1}, "zeros": 1}, "updates": []}
    assert card.differences(first, second) == {
        "method": ("lsq", "tqt"),
        "weights.bits.8": (card.NOT_RECORDED, 1),
    }
    assert card.differences(first, first) == {}


@pytest.mark.parametrize("notes", [{"epoch": "3"}, {"epochs": 3}])
def test_unknown_notes_are_refused(notes):
    with pytest.raises(ValueError, match=r"notes are texts called data, labels"):
        card.check_notes(notes)
