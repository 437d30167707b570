"""Quantization cards on the command line."""

import json

from tflite_tools.schema.contents import load


def test_cards_are_written_printed_and_compared(command, saved_net, tmp_path):
    first, second, slim = (tmp_path / name for name in ("a.tflite", "b.tflite", "s.tflite"))
    notes = ["--card", "labels=real", "--card", "baseline=86.1 %"]
    assert command("convert", saved_net, "--output", first, *notes)[0] == 0
    assert command("convert", saved_net, "--output", second, "--card", "labels=none")[0] == 0
    code, out, _ = command("inspect", first, "--card")
    assert code == 0 and "  notes.labels: real" in out and "  notes.baseline: 86.1 %" in out
    code, out, _ = command("inspect", first, "--card", "--json")
    card = json.loads(out)
    assert card == load(first.read_bytes()).card and card["notes"]["checkpoint"] == "not recorded"
    code, out, _ = command("compare", first, second, "--samples", 2)
    assert code == 0 and "card, notes.labels: real / none" in out
    code, out, _ = command("compare", first, second, "--samples", 2, "--json")
    assert json.loads(out)["card"]["notes.baseline"] == ["86.1 %", "not recorded"]
    code, _, err = command("convert", first, "--output", slim, "--card", "labels=none")
    assert code == 1 and "--card is for Keras models" in err
    assert command("convert", first, "--output", slim, "--slim")[0] == 0
    code, _, err = command("inspect", slim, "--card")
    assert code == 1 and "has no quantization card: --slim" in err
    assert command("compare", first, slim, "--samples", 2)[0] == 0
