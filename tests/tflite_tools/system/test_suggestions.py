"""What somebody may have meant."""

from tflite_tools.system.suggestions import similar_file, suggestion


def test_the_nearest_word_or_all():
    assert suggestion("cnvert", ["convert", "verify"]) == ": did you mean 'convert'?"
    assert suggestion("xyz", ["convert", "verify"]) == " (there are convert, verify)"


def test_files_beside_a_missing_one(tmp_path, monkeypatch):
    (tmp_path / "model.tflite").touch()
    assert similar_file(str(tmp_path / "modle.tflite")) == str(tmp_path / "model.tflite")
    assert similar_file(str(tmp_path / "other")) is None
    assert similar_file(str(tmp_path / "away" / "model.tflite")) is None
    monkeypatch.chdir(tmp_path)
    assert similar_file("mode.tflite") == "model.tflite"
