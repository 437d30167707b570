"""`report` of several files."""

import json

import numpy as np
import pytest

from tflite_tools.running import runtime
from tflite_tools.running.samples import stored as stored_samples


@pytest.fixture
def folder(tmp_path, canonical, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for bits in (2, 4):
        (tmp_path / f"w{bits}.tflite").write_bytes(canonical(bits, True).data)
    np.save("x.npy", np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype(np.float32))
    np.save("y.npy", np.arange(20) % 5)
    return tmp_path


def test_files_side_by_side(command, folder):
    code, out, err = command("report", "w2.tflite", "w4.tflite", "-o", "page.html")
    assert (code, err) == (0, "")
    page = (folder / "page.html").read_text()
    assert out == f"page.html: {len(page)} characters; 2 files side by side\n"
    assert "2 files side by side" in page and "w4.tflite" in page


def test_json_is_the_page_as_data(command, folder):
    code, out, _ = command("report", "w2.tflite", "w4.tflite", "-o", "page.html", "--json")
    found = json.loads(out)
    assert code == 0 and found["output"] == "page.html" and (folder / "page.html").exists()
    assert [file["name"] for file in found["files"]] == ["w2.tflite", "w4.tflite"]
    assert found["files"][0]["size"] == (folder / "w2.tflite").stat().st_size
    assert [one["width"] for one in found["layers"][1]] == ["2 bits", "4 bits"]
    assert found["picture"]["up"] == "bytes of RAM as C" and found["no_picture"]
    assert found["card"]["weights.average_bits"][0] < found["card"]["weights.average_bits"][1]


def test_accuracy_is_measured_with_labels(command, folder, canonical):
    samples = ("--inputs", "x.npy", "--labels", "y.npy")
    code, out, _ = command("report", "w2.tflite", "w4.tflite", *samples, "-o", "p.html", "--json")
    found = json.loads(out)
    assert code == 0 and found["no_picture"] == ""
    measured = {own["runner"]: own["share"] for own in found["files"][0]["accuracy"]}
    model = canonical(2, True)
    stored = stored_samples(model, {"image": np.load("x.npy")})
    (codes,) = runtime.run(model, stored, runtime=runtime.LITERT).outputs
    assert measured[runtime.LITERT] == np.mean(codes.argmax(-1) == np.load("y.npy"))
    assert found["picture"]["points"]["0"][1] == pytest.approx(100 * measured[runtime.LITERT])


def test_a_single_file_has_its_accuracy_too(command, folder):
    samples = ("--inputs", "x.npy", "--labels", "y.npy")
    code, _, _ = command("report", "w2.tflite", *samples, "-o", "p.html")
    assert code == 0 and "<td>accuracy</td><td>LiteRT, head" in (folder / "p.html").read_text()


def test_files_of_one_name_are_told_by_their_paths(command, folder):
    (folder / "other").mkdir()
    (folder / "w4.tflite").rename(folder / "other" / "w2.tflite")
    code, out, _ = command("report", "w2.tflite", "other/w2.tflite", "-o", "p.html", "--json")
    names = [file["name"] for file in json.loads(out)["files"]]
    assert code == 0 and names == ["w2.tflite", "other/w2.tflite"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["w2.tflite", "w4.tflite", "--reference", "x.npy", "--seed", "1"],
         "not verified: leave --reference, --seed out, or report one file"),
        (["w2.tflite", "./w2.tflite"], "A file is given twice"),
        (["w2.tflite", "gone.tflite"], "Cannot read 'gone.tflite'"),
        (["w2.tflite", "x.npy"], "'x.npy': Not a TFLite model"),
        (["w2.tflite", "."], "'.' is a folder"),
        (["w2.tflite", "w4.tflite", "--inputs", "x.npy"], "give --labels too"),
        (["w2.tflite", "w4.tflite", "--labels", "y.npy"], "give both"),
        (["w2.tflite", "w4.tflite", "--inputs", "y.npy", "--labels", "y.npy"],
         "'w2.tflite': Input 'image' takes samples of shape (8, 8, 3)"),
        (["w2.tflite", "w4.tflite", "--inputs", "x.npy", "--labels", "x.npy"], "'w2.tflite': "),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(command, folder, arguments, message):
    code, out, err = command("report", *arguments, "-o", "page.html")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert err.startswith("tflite_tools: error: ") and message in err
    assert not (folder / "page.html").exists()


def test_the_output_is_none_of_the_files(command, folder):
    before = (folder / "w4.tflite").read_bytes()
    (folder / "w4.tflite").rename(folder / "w4.html")
    code, _, err = command("report", "w2.tflite", "w4.html", "-o", "w4.html")
    assert code == 1 and "w4.html" in err and (folder / "w4.html").read_bytes() == before
