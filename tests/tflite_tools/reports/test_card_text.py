from tflite_tools.reports.card_text import card_text, differences_text

CARD = {
    "method": "lsq",
    "penalties": [],
    "weights": {"bits": {"2": 12, "8": 30}, "first_bits": [8], "last_bits": [8, 4]},
    "notes": {"labels": "real\x1b[31m", "checkpoint": "not recorded"},
}


def test_choices_come_first_and_each_field_once():
    lines = card_text(CARD).split("\n")
    assert lines[:3] == [
        "first and last layer",
        "  weights.first_bits: 8",
        "  weights.last_bits: 8, 4",
    ]
    rest = lines[lines.index("the rest") + 1 :]
    assert rest == ["  method: lsq", "  penalties: none"]
    assert "  weights.bits.2: 12" in lines
    assert not any("\x1b" in line for line in lines)


def test_differences_are_lines():
    found = differences_text({"weights.bits.2": (12, "not recorded"), "updates": ([], ["trs"])})
    assert found == ["card, weights.bits.2: 12 / not recorded", "card, updates: none / trs"]
