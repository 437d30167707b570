"""The integer model computes what the runtimes compute: no activation differs."""

import dataclasses

import numpy as np
import pytest
from operation_maker import MAKERS, OperationMaker
from quick import combinations

from tfbinreg.core.grid import Grid
from tfbinreg.deploy.frozen import FrozenGraph
from tfbinreg.deploy.integer_model import ARITHMETICS, IntegerModel
from tfbinreg.deploy.proof import prove
from tfbinreg.deploy.tflite_file import write
from tfbinreg.network.layer_kinds import KINDS, Role
from tflite_tools.running import runtime
from tflite_tools.schema import contents as models

RUNTIMES = {"tflm": runtime.TFLM, "litert": runtime.LITERT}
COUNTED = 1_000_000  # activations per kind and target, in the slow run


def stored_inputs(graph, count, seed):
    """Random int8 values; the first ones are all there are."""
    random = np.random.default_rng(seed)
    arrays = [random.integers(-128, 128, (count, *graph.ops[i].shape)) for i in graph.inputs]
    for array in arrays:
        flat = array.reshape(-1)
        flat[:256] = np.arange(-128, 128)[: flat.size]
    return [array.astype(np.int8) for array in arrays]


def real(graph, index, stored):
    grid = graph.ops[index].grid
    return (stored.astype(np.float32) - grid.zero_point) * grid.scale


def compared(graph, target, count, seed=0):
    """How many results there are, and lines that tell of those that differ."""
    data, stored = write(graph), stored_inputs(graph, count, seed)
    run = runtime.run(models.load(data), stored, runtime=RUNTIMES[target])
    given = [real(graph, i, array) for i, array in zip(graph.inputs, stored, strict=True)]
    made = IntegerModel(graph, ARITHMETICS[target])(given)
    total, different = 0, []
    for index, ours, theirs in zip(graph.outputs, made, run.outputs, strict=True):
        expected = real(graph, index, theirs).reshape(ours.shape)
        wrong, total = np.count_nonzero(np.asarray(ours) != expected), total + expected.size
        if wrong:
            different.append(f"{wrong} of {expected.size} results of {graph.ops[index]}")
    return total, different


@combinations(
    lambda kind, target, dyadic: dyadic == (target == "tflm"),
    kind=MAKERS,
    target=RUNTIMES,
    dyadic=[False, True],
)
def test_every_kind_of_operation(kind, target, dyadic):
    total, different = compared(OperationMaker(7, dyadic=dyadic).graph(kind, 25), target, 8)
    assert total >= 1000
    assert different == []


@pytest.mark.slow
@pytest.mark.parametrize("target", RUNTIMES)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_million_results(kind, target):
    total, seed = 0, 100
    while total < COUNTED:
        graph = OperationMaker(seed, dyadic=seed % 2 == 1).graph(kind, 60)
        found, different = compared(graph, target, 100, seed)
        assert different == []
        total, seed = total + found, seed + 1


def test_every_kind_is_here():
    graphs = [OperationMaker(0).graph(kind, 1) for kind in MAKERS]
    made = {op.kind for graph in graphs for op in graph.ops}
    kept = {
        name for name, kind in KINDS.items() if kind.role is not Role.REWRITE and kind.op != "none"
    }
    # Normalizations of both classes are the same operation; a padded pooling is two others.
    assert kept - {"ChannelAffine", "PaddedMaxPooling2D"} == made


def test_windows_with_more_values_than_float32_averages():
    maker = OperationMaker(0)
    grid = maker.grid()
    attributes = {"pool_size": (200, 100), "strides": (1, 1), "padding": "valid"}
    place = maker.input((203, 102, 1), grid)
    maker.add("AveragePooling2D", [place], grid, (4, 3, 1), attributes)
    graph = maker.graph("ReLU", 0)
    for target in RUNTIMES:
        assert compared(graph, target, 1)[1] == []


@pytest.mark.parametrize("target", RUNTIMES)
def test_a_transposed_convolution_that_saturates_at_zero_and_at_its_relus_limit(target):
    maker = OperationMaker(0)
    source = maker.grid(0.05, 0.05)
    kernel, _ = maker.kernel((2, 2, 4, 3), 4, 12, source)
    attributes = {"strides": (2, 2), "padding": "valid", "dilation_rate": (1, 1)}
    place = maker.input((4, 4, 3), source)
    for limit in (None, 6.0):
        ends_at_zero = Grid(8, True, np.array(0.1), 0, 255)
        options = {"kernel": kernel, "relu": True, "relu_limit": limit}
        maker.add("Conv2DTranspose", [place], ends_at_zero, (8, 8, 4), attributes, **options)
    graph = maker.graph("ReLU", 0)
    assert compared(graph, target, 20)[1] == []
    prove(write(graph), graph)


class TestRefusals:
    def transposed(self):
        maker = OperationMaker(0)
        source = maker.grid()
        kernel, grid = maker.kernel((1, 1, 4, 3), 4, 3, source)
        attributes = {"strides": (2, 2), "padding": "same", "dilation_rate": (1, 1)}
        place = maker.input((4, 4, 3), source)
        maker.add("Conv2DTranspose", [place], grid, (8, 8, 4), attributes, kernel=kernel)
        return maker.graph("ReLU", 0)

    def test_a_transposed_convolution_that_litert_rounds_in_no_known_way(self):
        graph = self.transposed()
        with pytest.raises(ValueError, match=r"Conv2DTranspose1: its kernel \(1, 1\) is smaller"):
            IntegerModel(graph, ARITHMETICS["litert"])
        assert compared(graph, "tflm", 50)[1] == []

    @pytest.mark.parametrize(
        ("target", "finer", "what"),
        [("litert", 300.0, "300 times finer"), ("tflm", 2.0**20, "too fine for its operands")],
    )
    def test_sums_on_a_much_finer_grid(self, target, finer, what):
        maker = OperationMaker(0)
        grid = maker.grid(1.0, 1.0)
        places = [maker.input((4,), grid) for _ in range(2)]
        fine = dataclasses.replace(grid, scale=grid.scale / np.float32(finer))
        maker.add("Add", places, fine, (4,))
        with pytest.raises(ValueError, match=f"Add2: .*{what}"):
            IntegerModel(maker.graph("ReLU", 0), ARITHMETICS[target])

    @pytest.mark.parametrize(
        ("target", "old", "new", "what"),
        [("litert", 22, 119, "rounds as the processor"), ("tflm", 1, 55, "reads behind the last")],
    )
    def test_resizing_that_a_runtime_computes_in_no_known_way(self, target, old, new, what):
        maker = OperationMaker(0)
        settings = {"half_pixel_centers": target == "litert", "align_corners": False}
        attributes = {**settings, "factor": None, "source": (old, 2)}
        grid = maker.grid()
        place = maker.input((old, 2, 3), grid)
        maker.add("ResizeBilinear", [place], grid, (new, 4, 3), attributes)
        graph = maker.graph("ReLU", 0)
        with pytest.raises(ValueError, match=f"ResizeBilinear1: .*{what}.*; resize to a small mul"):
            IntegerModel(graph, ARITHMETICS[target])
        if target == "litert":
            assert compared(graph, "tflm", 5)[1] == []


def test_images_of_open_sizes_are_resized_by_a_factor():
    maker = OperationMaker(0)
    maker_grid, settings = maker.grid(), {"half_pixel_centers": True, "align_corners": False}
    place = maker.input((None, None, 3), maker_grid)
    attributes = {**settings, "factor": (2, 3), "source": (None, None)}
    maker.add("ResizeBilinear", [place], maker_grid, (None, None, 3), attributes)
    graph = maker.graph("ReLU", 0)
    values = np.zeros((2, 4, 5, 3), np.float32)
    for target in RUNTIMES:
        (made,) = IntegerModel(graph, ARITHMETICS[target])([values])
        assert made.shape == (2, 8, 15, 3)


def test_a_graph_that_was_saved_computes_the_same():
    graph = OperationMaker(3).graph("Conv2D", 3)
    loaded = FrozenGraph.from_bytes(graph.to_bytes())
    given = [
        real(graph, i, a) for i, a in zip(graph.inputs, stored_inputs(graph, 2, 0), strict=True)
    ]
    for target in RUNTIMES:
        ours, theirs = (IntegerModel(g, ARITHMETICS[target])(given) for g in (graph, loaded))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
