"""examples/detector.py, its boxes in Python and in C, on a few images."""

import importlib
import pathlib
import subprocess

import numpy as np
import pytest

from tflite_tools.c import host_run
from tflite_tools.running import runtime
from tflite_tools.schema import contents
from tflite_tools.schema.contents import Quantization

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = ROOT / "examples" / "detector_c"


@pytest.fixture(autouse=True)
def _import_from_examples(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


@pytest.fixture
def shapes():
    return importlib.import_module("shapes")


@pytest.fixture
def detections():
    return importlib.import_module("detections")


def test_scenes_are_drawn_in_their_boxes(shapes):
    scenes = shapes.draw(20, 0)
    again = shapes.draw(20, 0)
    np.testing.assert_array_equal(scenes.images, again.images)
    assert scenes.images.min() == 0 and scenes.images.max() == 255
    counts = [len(boxes) for boxes in scenes.boxes]
    assert min(counts) == 1 and max(counts) == 4
    boxes = np.concatenate(scenes.boxes)
    assert boxes.min() >= 0 and boxes.max() <= shapes.SIZE
    assert np.all(boxes[:, 2:] - boxes[:, :2] >= 12)  # so a box holds the middle of its cell
    assert set(np.concatenate(scenes.classes)) == {0, 1, 2}


def test_overlaps_by_hand(shapes):
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 5, 5]], np.float32)
    found = shapes.overlaps(boxes, boxes)
    np.testing.assert_allclose(found, [[1, 1 / 7, 0], [1 / 7, 1, 0], [0, 0, 0]])


def cells(*numbers, classes=2):
    """A grid of 2 x 2 cells with (row, column, class, score, distances)."""
    distances, scores = np.zeros((2, 2, 4), np.float32), np.zeros((2, 2, classes), np.float32)
    for row, column, kind, score, own in numbers:
        distances[row, column], scores[row, column, kind] = own, score
    return distances, scores


def test_the_best_of_boxes_that_overlap_stays(detections):
    given = cells(
        (0, 0, 0, 0.6, [0.5, 0.5, 0.5, 0.5]),
        (0, 1, 0, 0.9, [1.5, 0.5, -0.5, 0.5]),  # the same box, from the next cell
        (1, 1, 1, 0.5, [1.5, 1.5, -0.5, -0.5]),  # the same box of another class
        (1, 0, 0, 0.2, [1.0, 1.0, 1.0, 1.0]),  # too little
    )
    found = detections.find(*given, cell=8, least_score=0.25)
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    assert found.classes.tolist() == [0, 1]
    np.testing.assert_array_equal(found.boxes, [[0, 0, 8, 8], [0, 0, 8, 8]])
    assert len(detections.find(*given, cell=8, least_score=0.99).boxes) == 0


def test_mean_average_precision_by_hand(detections):
    def found(*rows):
        boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
        scores = np.array([row[1] for row in rows], np.float32)
        return detections.Found(boxes, scores, np.array([row[2] for row in rows], int))

    one, other, far = [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]
    there = [np.array([one, other], np.float32), np.zeros((0, 4), np.float32)]
    kinds = [np.array([0, 0]), np.array([], int)]

    def marked(*rows, more=()):
        return detections.mean_average_precision([found(*rows), found(*more)], there, kinds, 1)

    assert marked((one, 0.9, 0), (other, 0.8, 0)) == 1.0
    assert marked((one, 0.9, 0)) == 0.5
    assert marked((one, 0.9, 0), (one, 0.8, 0)) == 0.5  # found twice counts once
    assert marked((one, 0.8, 0), (other, 0.7, 0), more=[(far, 0.9, 0)]) == pytest.approx(2 / 3)
    assert marked((one, 0.9, 0), (far, 0.8, 0), (other, 0.7, 0)) == pytest.approx(5 / 6)
    assert marked() == 0.0
    assert marked((one, 0.9, 1)) == 0.0


# A network that hands on what it is given.
NET = """#include <stdint.h>
#include <string.h>
#define NET_INPUT_0_SIZE 448
#define NET_INPUT_0_ZERO_POINT (-128)
#define NET_OUTPUT_0_SIZE 256
#define NET_OUTPUT_0_ZERO_POINT (-100)
#define NET_OUTPUT_0_SCALE "0.0130718956"
#define NET_OUTPUT_1_SIZE 192
#define NET_OUTPUT_1_ZERO_POINT (-128)
#define NET_OUTPUT_1_SCALE "0.00390625"
static inline void net_run(const int8_t *in, int8_t *distances, int8_t *scores) {
  memcpy(distances, in, 256);
  memcpy(scores, in + 256, 192);
}
"""


def found_in_c(folder, images, least_score, *sources):
    """The lines that the program tells of images; `folder` holds net.h, and net.c if it is among
    the sources."""
    if host_run.compiler() is None:
        pytest.skip(host_run.MISSING)
    program, paths = folder / "find", [*SOURCES.glob("*.c"), *sources]
    command = [host_run.compiler(), *host_run.FLAGS, *host_run.sanitizers(), "-ffp-contract=off"]
    command += [f"-I{SOURCES}", f"-I{folder}", *map(str, paths), "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run(
        [program, str(least_score)], input=images.tobytes(), capture_output=True, check=True
    )
    return [line.split() for line in done.stdout.decode().splitlines()]


def found_in_python(detections, outputs, least_score):
    lines = []
    for number, own in enumerate(zip(*outputs, strict=True)):
        found = detections.find(*own, cell=8, least_score=least_score)
        for box, score, kind in zip(*found, strict=True):
            lines.append([str(number), str(kind), *(f"{v:.9g}" for v in (score, *box))])
    return lines


def test_c_finds_the_same_boxes(tmp_path, detections):
    (tmp_path / "net.h").write_text(NET)
    random = np.random.default_rng(0)
    bytes_ = random.integers(0, 256, (40, 448), np.uint8)
    bytes_[:, 256:] //= random.integers(1, 60, (40, 192)).astype(np.uint8)  # few high scores
    grids = (Quantization(np.float32([0.0130718956]), np.array([-100]), 0),
             Quantization(np.float32([1 / 256]), np.array([-128]), 0))  # fmt: skip
    stored = (bytes_.astype(np.int16) - 128).astype(np.int8)
    stored = (stored[:, :256].reshape(-1, 8, 8, 4), stored[:, 256:].reshape(-1, 8, 8, 3))
    outputs = [runtime.dequantize(*own) for own in zip(stored, grids, strict=True)]
    for least_score in (0.25, 0.02):
        expected = found_in_python(detections, outputs, least_score)
        assert len(expected) > 100
        assert found_in_c(tmp_path, bytes_, least_score) == expected


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--one_output", "80"]])
def test_the_whole_way(tmp_path, shapes, detections, more, capsys):
    example = importlib.import_module("detector")
    sizes = {"seeds": 1, "images": 64, "held_out": 16, "float_epochs": 1, "epochs": 1}
    flags = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    example.main([*flags, "--bits", "2", "--output_dir", str(tmp_path), *more])
    assert "| W2A8, the file |" in capsys.readouterr().out
    if more or not runtime.available(runtime.TFLM):
        return
    images, net = shapes.draw(24, 7).images, tmp_path / "net"
    file = contents.load((tmp_path / "detector.tflite").read_bytes())
    expected = found_in_python(detections, example.run_file(file, images), 0.01)
    assert len(expected) > 24
    assert found_in_c(net, images.astype(np.uint8), 0.01, net / "net.c") == expected


def test_bad_numbers_are_refused(capsys):
    example = importlib.import_module("detector")
    for flag, number, told in (("seeds", 0, "at least 1"), ("one_output", -1, "not be negative")):
        with pytest.raises(SystemExit):
            example.main([f"--{flag}", str(number)])
        assert f"--{flag} must {'be ' * (number == 0)}{told}" in capsys.readouterr().err
