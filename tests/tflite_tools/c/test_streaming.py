"""Networks that take frames: bit for bit what they compute for the whole sequence."""

import numpy as np
import pytest
import sequence_nets
from file_maker import samples
from quick import slow
from sequence_nets import SequenceMaker

from tflite_tools.c import generate, host_run, stream_run
from tflite_tools.running import runtime

CHECKED = ("-Wpedantic", "-Wconversion", *host_run.SANITIZERS, "-O0")


@pytest.fixture
def can_run(needs_compiler):
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")


def streamed(model, sequences, *, flags=CHECKED):
    """The C that takes frames, and what it writes for some sequences."""
    sources = generate.generate(model, streaming=True)
    frames = [stream_run.frames_of([sequence]) for sequence in sequences]
    made = stream_run.run_frames(sources.files, sources.stream, frames, flags=flags)
    return sources, [rows[0] for rows in made]


def whole(model, sequences):
    return runtime.run(model, [sequences], runtime=runtime.TFLM).outputs[0]


@pytest.mark.parametrize("name", ["causal", "strided", "cropped", "over_features"])
def test_frames_give_the_rows_of_the_whole_sequence(name, can_run):
    model, longer = sequence_nets.NETS[name](), sequence_nets.NETS[name](frames=64)
    (sequences,) = samples(longer, 3)
    sources, made = streamed(model, sequences, flags=(*CHECKED, host_run.EMULATE_DSP))
    expected = whole(longer, sequences)
    output = sources.stream.output
    for rows, sequence in zip(made, expected, strict=True):
        wanted = sequence.reshape(-1, rows.shape[1])
        count = (64 - 1 - output.begin) // output.every + 1
        assert len(rows) == count >= len(wanted) > 5
        assert np.array_equal(rows[: len(wanted)], wanted)


@pytest.mark.parametrize("head", ["mean", "flat"])
def test_a_head_sees_the_newest_rows(head, can_run):
    model = sequence_nets.window(head=head)
    random, frames = np.random.default_rng(7), 41
    sequence = random.integers(-128, 128, (1, frames, 3)).astype(np.int8)
    sources, (made,) = streamed(model, sequence)
    output, own = sources.stream.output, sources.stream.frames
    assert (output.begin, output.every) == (own - 2, 2)  # of 18 rows a stride of 2 sees 17
    windows = [
        sequence[0, end - 19 :][:own] for end in range(19, frames + 1, 2) if end + 1 <= frames
    ]
    expected = whole(model, np.stack(windows))
    assert np.array_equal(made[: len(expected)], expected)
    assert len(made) - len(expected) in (0, 1)


def test_the_last_frame_is_told_from_the_first_on(can_run):
    model = sequence_nets.tail()
    (sequences,) = samples(model, 2)
    sources, made = streamed(model, sequences)
    assert sources.stream.output.begin == 0
    for length in (2, 9, 20):
        expected = whole(sequence_nets.tail(length), sequences[:, :length])
        assert np.array_equal(np.stack([rows[length - 1] for rows in made]), expected)


def random_net(seed, frames):
    """A net of random operators, all of which take frames."""
    maker = SequenceMaker(seed, frames)
    random = maker.random
    for kind in random.permutation(
        ["conv", "dilated", "valid", "pool", "sum", "depthwise", "conv"]
    ):
        before = maker.now
        if kind == "pool":
            maker.pool(
                2,
                int(random.integers(1, 3)),
                str(random.choice(["MAX_POOL_2D", "AVERAGE_POOL_2D"])),
            )
        elif kind == "valid":
            maker.conv(causal=False, taps=int(random.integers(1, 5)))
        elif kind == "dilated":
            maker.conv(dilation=int(random.integers(2, 5)), channels=int(random.integers(1, 9)))
        elif kind == "sum":
            made = maker.conv(before, depthwise=True, causal=True)
            maker.sum(before, made)
        else:
            stride = int(random.choice([1, 1, 2, 3]))
            maker.conv(stride=stride, depthwise=kind == "depthwise", channels=4)
    return maker.file()


@pytest.mark.parametrize("seed", [0, *slow(*range(1, 20))])
def test_random_nets(seed, can_run):
    model, longer = random_net(seed, 80), random_net(seed, 150)
    (sequences,) = samples(longer, 2)
    _, made = streamed(model, sequences, flags=(*CHECKED, *[host_run.EMULATE_DSP] * (seed % 2)))
    for rows, sequence in zip(made, whole(longer, sequences), strict=True):
        wanted = sequence.reshape(-1, rows.shape[1])
        assert np.array_equal(rows[: len(wanted)], wanted)
        assert len(wanted) > 2


def test_frames_of_a_net_that_sees_the_future(command, model_file, tmp_path):
    output = tmp_path / "net"
    code, out, err = command("convert", model_file, "--format", "c", "--streaming", "-o", output)
    assert (code, out) == (1, "")
    assert "by its padding: take padding='causal'" in err
    assert "Traceback" not in err
    assert not output.exists()
