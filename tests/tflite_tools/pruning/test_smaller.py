"""Files without channels compute the same bits, and have no channel that they could do without."""

import numpy as np
import pytest
from file_maker import Maker, samples
from pruned_nets import pruned_net
from quick import slow

from tflite_tools.pruning import removal, smaller
from tflite_tools.running import runtime

SAME, VALID = 0, 1
ZERO = -20  # of `Chain`'s activations


@pytest.fixture(scope="module")
def needs_tflm():
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")


def check(model, seed=0, *, least=True):
    """The smaller file, which computes the same in TFLM and, at `least`, cannot be smaller."""
    found = smaller.of_model(model)
    if found.model is not model:
        inputs = samples(model, 4, seed)
        expected, made = (
            runtime.run(own, inputs, runtime=runtime.TFLM).outputs for own in (model, found.model)
        )
        for one, other in zip(expected, made, strict=True):
            np.testing.assert_array_equal(one, other)
        assert not least or not removal.of_graph(found.model.main).kept
    return found


@pytest.mark.parametrize("seed", [*range(8), *slow(*range(8, 200))])
def test_random_nets(seed, needs_tflm):
    check_random_net(seed, pruned_net(seed))


@pytest.mark.parametrize("seed", [*range(2), *slow(*range(2, 60))])
def test_random_nets_with_groups(seed, needs_tflm):
    # Of what was a group, and is alone now, single channels can go.
    check_random_net(seed, pruned_net(seed, grouped=True), least=False)


def check_random_net(seed, model, *, least=True):
    found = check(model, seed, least=least)
    assert bool(found.count) == (found.model is not model)
    for mine, other in zip(model.main.ops, found.model.main.ops, strict=True):
        assert (mine.name, mine.outputs) == (other.name, other.outputs)
    assert found.model.manifest == model.manifest


def test_random_nets_lose_channels():
    counts = [smaller.of_model(pruned_net(seed)).count for seed in range(20)]
    assert np.count_nonzero(counts) >= 12 and max(counts) >= 10


class Chain:
    """Convolutions in a row; channels in `zeros` are pruned."""

    def __init__(self, channels=4):
        self.maker = Maker()
        self.shape = (1, 6, 6, channels)
        self.last = self.maker.input(self.shape, (0.05, ZERO))
        self.random = np.random.default_rng(0)

    def conv(
        self, channels, size=1, *, zeros=(), unread=(), bias=None, padding=SAME, end=False, depth=0
    ):
        codes = self.random.integers(1, 8, (channels, size, size, depth or self.shape[3]))
        codes[list(zeros)] = 0
        codes[..., list(unread)] = 0
        scales = self.random.uniform(0.01, 0.02, channels).astype(np.float32) / 50
        weights = self.maker.weights(codes, 4, 8, scales)
        values = self.random.integers(-500, 500, channels) if bias is None else np.array(bias)
        places = [self.last, weights]
        if bias is not False:
            data = values.astype(np.int32)
            grid = (scales * np.float32(0.05), 0)
            places.append(self.maker.tensor((channels,), grid, data=data))
        side = self.shape[1] - (size - 1 if padding == VALID else 0)
        self.shape = (1, side, side, channels)
        options = {"strideH": 1, "strideW": 1, "padding": padding}
        self.last = self.maker.op(
            "CONV_2D", places, self.shape, (0.05, ZERO), options, kind="Conv2DOptions", output=end
        )
        return self.last

    def sum(self, first, second):
        self.last = self.maker.op(
            "ADD", [first, second], self.shape, (0.05, ZERO), kind="AddOptions", output=False
        )
        return self.last

    def left_out(self):
        found = check(self.maker.file())
        return {tensor: list(gone) for tensor, gone in found.left_out.items()}


def test_where_nothing_can_go_the_file_stays(needs_tflm, two_bits):
    chain = Chain()
    chain.conv(5)
    chain.conv(3, 3, end=True)
    model = chain.maker.file()
    assert smaller.of_model(model).model is model
    assert smaller.of_model(two_bits).model is two_bits


@pytest.mark.parametrize(
    ("size", "padding", "bias", "gone"),
    [
        (1, SAME, [30, 7000, 9, 9000], [1, 3]),
        (3, VALID, [30, 7000, 9, 9000], [1, 3]),
        (3, SAME, [30, 0, 9, 9000], [1]),  # the zero point is what lies around the image
        (3, SAME, [30, 7000, 9, 9000], []),
    ],
)
def test_constant_channels_go_into_the_bias_if_that_is_exact(needs_tflm, size, padding, bias, gone):
    chain = Chain()
    first = chain.conv(4, zeros=[1, 3], bias=bias)
    chain.conv(3, size, padding=padding, end=True)
    assert chain.left_out() == ({first: gone} if gone else {})


def test_without_a_bias_only_zeros_go(needs_tflm):
    chain = Chain()
    first = chain.conv(4, zeros=[1, 3], bias=[30, 9000, 9, 0])
    chain.conv(3, bias=False, end=True)
    assert chain.left_out() == {first: [3]}


def test_biases_stay_far_from_the_ends_of_int32(needs_tflm):
    chain = Chain()
    first = chain.conv(4, zeros=[1, 3], bias=[30, 9000, 9, 0])
    chain.conv(3, bias=[0, 2**30, 0], end=True)
    assert chain.left_out() == {first: [3]}


def test_channels_that_nothing_reads_go_and_so_does_what_they_alone_read(needs_tflm):
    chain = Chain()
    first, second = chain.conv(4), None
    second = chain.conv(5, unread=[0])
    chain.conv(3, unread=[2, 4], end=True)
    assert chain.left_out() == {first: [0], second: [2, 4]}


def test_a_sum_keeps_a_channel_unless_all_its_operands_can_go(needs_tflm):
    chain = Chain()
    first = chain.conv(4, zeros=[1, 2], bias=[1, 0, 0, 2])
    second = chain.conv(4, 3, zeros=[2, 3], bias=[1, 2, 0, 0])
    chain.sum(first, second)
    chain.conv(3, end=True)
    assert chain.left_out() == {first: [2], second: [2]}


def test_outputs_of_the_model_keep_their_channels(needs_tflm):
    chain = Chain()
    chain.conv(4, zeros=[1], end=True)
    chain.conv(3, zeros=[0, 1, 2], end=True)
    assert chain.left_out() == {}


def test_groups_go_as_a_whole(needs_tflm):
    """Of four groups of two channels one has no weights; half of another has none."""
    chain = Chain()
    first = chain.conv(8)
    second = chain.conv(8, 3, depth=2, zeros=[2, 3, 6], bias=[1, 2, 0, 0, 3, 4, 0, 5])
    chain.conv(3, end=True)
    assert chain.left_out() == {first: [2, 3], second: [2, 3]}


def test_every_tensor_keeps_a_channel(needs_tflm):
    chain = Chain()
    first = chain.conv(4, zeros=range(4))
    second = chain.conv(3)
    chain.conv(2, end=True)
    assert {tensor: len(gone) for tensor, gone in chain.left_out().items()} == {first: 3, second: 2}


def test_weights_that_two_operators_read_stay_whole(needs_tflm):
    chain = Chain(channels=4)
    maker, first = chain.maker, chain.conv(4, zeros=[1])
    weights, bias = (maker.graph.operators[0].inputs[place] for place in (1, 2))
    options = {"strideH": 1, "strideW": 1, "padding": SAME}
    places = [first, weights, bias]
    maker.op("CONV_2D", places, (1, 6, 6, 4), (0.05, ZERO), options, kind="Conv2DOptions")
    assert chain.left_out() == {}


def test_other_operators_that_share_a_constant_keep_it(needs_tflm):
    """Both convolutions have one bias tensor; one of them loses a channel."""
    chain = Chain(channels=4)
    maker = chain.maker
    first = chain.conv(4, zeros=[1], bias=[5, 0, 7, 9])
    chain.conv(4, end=True)
    maker.graph.operators[1].inputs[2] = maker.graph.operators[0].inputs[2]
    assert chain.left_out() == {first: [1]}


def test_several_subgraphs_stay_as_they_are(two_bits, edit):
    model = edit(two_bits, lambda container: container.subgraphs.append(container.subgraphs[0]))
    assert smaller.of_model(model).model is model
