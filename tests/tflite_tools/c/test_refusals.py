"""What cannot be written as C is refused with operator, tensor and every reason."""

import numpy as np
import pytest
from file_maker import Maker

from tflite_tools.c import generate, host_run
from tflite_tools.schema import flatbuffer
from tflite_tools.schema.contents import load, written

SHAPE = (1, 4, 4, 2)


@pytest.mark.parametrize(
    "name",
    ["", "1net", "a-b", "for", "main", "x" * 64, "tfb_net", "nét", "a b", "tfbinreg_runtime"],
)
def test_names_that_are_no_identifiers(name, int8_file):
    with pytest.raises(ValueError, match=r"C identifier|names of the runtime"):
        generate.generate(int8_file, name=name)


def test_a_name_is_a_prefix_of_everything(int8_file, needs_compiler):
    sources = generate.generate(int8_file, name="my_net")
    assert set(sources.files) == {"my_net.c", "my_net.h", "main.c", "tfbinreg_runtime.h"}
    assert "void my_net_run(const int8_t *input0, int8_t *output0);" in sources.files["my_net.h"]
    assert f"#define MY_NET_ARENA_BYTES {sources.arena_bytes}\n" in sources.files["my_net.h"]
    host_run.run(sources.files, int8_file, [np.zeros((1, 8, 8, 3), np.int8)])


def test_files_without_a_manifest_or_damaged(float_file, int8_file):
    with pytest.raises(ValueError, match="no tfbinreg manifest"):
        generate.generate(float_file)
    with pytest.raises(ValueError, match=r"Not a TFLite model|damaged"):
        generate.generate(load(int8_file.data[:100]))


def test_float_edges(float_io_file):
    with pytest.raises(ValueError, match="FLOAT32, not INT8; convert with input_type='int8'"):
        generate.generate(float_io_file)


def kernel(
    maker, *, codes=None, bits=2, prescale=32, scale=0.001, bias=None, zero=0, depth=2, **options
):
    shape = (3, 1, 1, depth)
    values = np.ones(shape, np.int64) if codes is None else np.full(shape, codes)
    biases = np.zeros(3, np.int32) if bias is None else np.array(bias, np.int32)
    weights = maker.weights(values, bits, prescale, np.float32(scale))
    if zero:
        maker.graph.tensors[weights].quantization.zeroPoint = np.array([zero])
    places = [maker.input(SHAPE), weights, maker.tensor(biases.shape, data=biases)]
    options = {"strideH": 1, "strideW": 1, "padding": 1, "fusedActivationFunction": 0,
               "dilationHFactor": 1, "dilationWFactor": 1} | options  # fmt: skip
    maker.op("CONV_2D", places, (1, 4, 4, 3), (0.01, 0), options, kind="Conv2DOptions")


def one(name, shape=SHAPE, grid=(0.1, -7), options=None, kind=None, extra=(), source=(0.05, 3)):
    """Makes a file of one operator."""

    def make(maker):
        places = [maker.input(SHAPE, source), *(add(maker) for add in extra)]
        maker.op(name, places, shape, grid, options, kind=kind)

    return make


def ints(*values):
    return lambda maker: maker.ints(values if len(values) > 1 else values[0])


def pooled(**options):
    options = {
        "padding": 1,
        "filterHeight": 2,
        "filterWidth": 2,
        "strideH": 2,
        "strideW": 2,
    } | options
    return one("MAX_POOL_2D", (1, 2, 2, 2), (0.05, 3), options, "Pool2DOptions")


FULL = "FullyConnectedOptions"
CASES = {
    "this operator is not supported": one("SIN"),
    "the scale inf": one("LOGISTIC", source=(np.inf, 3)),
    "has the zero point 200": one("LOGISTIC", source=(0.1, 200)),
    "no single scale": one("LOGISTIC", source=(np.ones(2), 3)),
    "an output grid other than": one("LOGISTIC"),
    "1/256": one("SOFTMAX", options={"beta": 1.0}, kind="SoftmaxOptions"),
    "beta None": one("SOFTMAX", grid=(1 / 256, -128)),
    "the slope None": one("LEAKY_RELU"),
    "TFLM does not rescale": one("RESHAPE"),
    "the output has shape": one("RESHAPE", (1, 5), (0.05, 3)),
    "not a constant of type": one("MEAN", (1, 2), extra=[lambda m: m.input((2,))]),
    "axes [7] of 4": one("MEAN", (1, 2), extra=[ints(7)]),
    "not neighbours": one("MEAN", (4,), extra=[ints(1, 3)]),
    "input 1 is missing": one("ADD"),
    "does not match|not be broadcast": one("ADD", extra=[lambda m: m.input((1, 4, 4, 3))]),
    "not (1, 4, 4, 2)": one("ADD", (1, 4, 4, 3), extra=[lambda m: m.input(SHAPE)]),
    "too fine for its operands'": one("ADD", grid=(1e-9, 0), extra=[lambda m: m.input(SHAPE)]),
    "too far apart": one("MUL", grid=(1e-15, 0), extra=[lambda m: m.input(SHAPE)]),
    "the fused activation TANH": one(
        "ADD", extra=[lambda m: m.input(SHAPE)], options={"fusedActivationFunction": 4},
        kind="AddOptions"),
    "finer than the input's": one("HARD_SWISH", grid=(1e-6, 0)),
    # two groups of three filters, and a filter of more channels than there are
    "the filter (3, 1, 1, 1) does not fit 2 input channels": lambda m: kernel(m, depth=1),
    "the filter (3, 1, 1, 3) does not fit 2 input channels": lambda m: kernel(m, depth=3),
    "option filterHeight is 0": pooled(filterHeight=0),
    "option strideW is 0": pooled(strideW=0),
    "the axis 9": one(
        "CONCATENATION", grid=(0.05, 3), options={"axis": 9}, kind="ConcatenationOptions"),
    "the order [0, 0, 1, 2]": one("TRANSPOSE", grid=(0.05, 3), extra=[ints(0, 0, 1, 2)]),
    "a step of 0": one(
        "STRIDED_SLICE", grid=(0.05, 3), kind="StridedSliceOptions",
        extra=[ints(0, 0, 0, 0), ints(1, 4, 4, 2), ints(1, 0, 1, 1)]),
    "option ellipsisMask": one(
        "STRIDED_SLICE", grid=(0.05, 3), options={"ellipsisMask": 1}, kind="StridedSliceOptions",
        extra=[ints(0, 0, 0, 0), ints(1, 4, 4, 2), ints(1, 1, 1, 1)]),
    "both halfPixelCenters and alignCorners": one(
        "RESIZE_BILINEAR", (1, 8, 8, 2), (0.05, 3),
        {"halfPixelCenters": True, "alignCorners": True}, "ResizeBilinearOptions",
        extra=[ints(8, 8)]),
    "reads behind the last one": one(
        "RESIZE_BILINEAR", (1, 159, 4, 2), (0.05, 3), kind="ResizeBilinearOptions",
        extra=[ints(159, 4)]),
    "reaches outside": one("SLICE", grid=(0.05, 3), extra=[ints(0, 3, 0, 0), ints(1, 4, 4, 2)]),
    "paddings": one("PAD", grid=(0.05, 3), extra=[ints([[0, 0], [-1, 1], [0, 0], [0, 0]])]),
    "could leave 32 bits": lambda maker: kernel(maker, bias=[2**31 - 1] * 3),
    "32 bits": lambda maker: kernel(maker, scale=1e7),
    "reaches over 50000 values": lambda maker: kernel(maker, dilationWFactor=50000),
    "at a scale too fine": one("MEAN", (1, 2), (1e-9, 0), extra=[ints(1, 2)]),
    "2 biases for 3 channels": lambda maker: kernel(maker, bias=[0, 0]),
    "codes of more than 2 bits": lambda maker: kernel(maker, codes=3, prescale=16),
    "not quantized with zero point 0": lambda maker: kernel(maker, zero=4),
    "scales that do not fit": lambda maker: kernel(maker, scale=np.ones(2)),
    "the fused activation SIGN_BIT": lambda maker: kernel(maker, fusedActivationFunction=5),
    "option padding is 7": lambda maker: kernel(maker, padding=7),
    "option strideH is 0": lambda maker: kernel(maker, strideH=0),
    "shuffled weights": one(
        "FULLY_CONNECTED", (1, 1), options={"weightsFormat": 1}, kind=FULL,
        extra=[lambda m: m.weights(np.ones((1, 32), int), 2, 32, np.float32(0.1))]),
}  # fmt: skip


@pytest.mark.parametrize("reason", CASES)
def test_reasons(reason):
    maker = Maker()
    CASES[reason](maker)
    with pytest.raises(ValueError) as caught:
        generate.generate(maker.file())
    assert any(part in str(caught.value) for part in reason.split("|")), caught.value
    assert str(caught.value).startswith("Cannot write the file as C:\n  - ")


def test_every_reason_at_once():
    maker = Maker()
    one("SIN")(maker)
    pooled(strideW=0)(maker)
    kernel(maker, bias=[0], fusedActivationFunction=5)
    with pytest.raises(ValueError) as caught:
        generate.generate(maker.file())
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert lines[1] == "  - SIN 'tensor1': this operator is not supported"


def test_the_largest_biases(c_is_tflm):
    products = 255 * 2 * 32
    for sign in (-1, 1):
        maker = Maker()
        kernel(maker, bias=[sign * (2**30 - products - 1)] * 3)
        c_is_tflm(maker.file())  # the sanitizers find what overflows
    maker = Maker()
    kernel(maker, bias=[2**30 - products] * 3)
    with pytest.raises(ValueError, match="could leave 32 bits"):
        generate.generate(maker.file())


def deep(depth):
    """A file of 4 * depth codes of -2 without pre-scale."""
    maker = Maker()
    weights = maker.weights(np.full((1, 2, 2, depth), -2), 2, 1, np.float32(1e-6))
    bias = maker.tensor((1,), data=np.zeros(1, np.int32))
    places = [maker.input((1, 2, 2, depth), (0.05, 127)), weights, bias]
    options = {"strideH": 1, "strideW": 1, "padding": 1}
    options |= {"dilationHFactor": 1, "dilationWFactor": 1}
    maker.op("CONV_2D", places, (1, 1, 1, 1), (0.01, 0), options, kind="Conv2DOptions")
    return maker.file()


def test_the_largest_sums_of_unpacked_codes(c_is_tflm):
    c_is_tflm(deep(16448), count=2)
    with pytest.raises(ValueError, match="could leave 32 bits"):
        generate.generate(deep(16449))


def test_tensors_that_nobody_computes(int8_file):
    container = flatbuffer.read(int8_file.data)
    container.subgraphs[0].operators = container.subgraphs[0].operators[1:]
    with pytest.raises(ValueError, match="nothing computes it before it is read"):
        generate.generate(written(container))


def test_names_cannot_leave_a_comment(needs_compiler):
    maker = Maker()
    kernel(maker)
    for tensor in maker.graph.tensors:
        tensor.name = f'*/ #error "{tensor.name}" \\\n'
    maker.layers = []
    data = maker.file()
    sources = generate.generate(data)
    assert "#error" not in sources.files["model.c"]
    host_run.run(sources.files, data, [np.zeros(SHAPE, np.int8)])


@pytest.mark.parametrize("seed", range(60))
def test_damaged_files_are_refused_or_run_within_their_memory(
    seed, int8_file, flip, needs_compiler
):
    data = flip(int8_file.data, seed, count=2)
    try:
        model = load(data)
        sources = generate.generate(model)
    except ValueError:
        return
    zeros = [np.zeros(model.main.tensors[i].shape, np.int8) for i in model.main.inputs]
    if seed % 6 == 0:  # the sanitizers end the program if it leaves an array
        host_run.run(sources.files, model, zeros)


def test_no_compiler(monkeypatch, int8_file):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(host_run.CompilerError, match="no C compiler: set CC"):
        image = np.zeros((1, 8, 8, 3), np.int8)
        host_run.run(generate.generate(int8_file).files, int8_file, [image])


def test_sources_that_do_not_compile(int8_file, needs_compiler):
    sources = generate.generate(int8_file)
    broken = {**sources.files, "model.c": "int x = ;"}
    with pytest.raises(host_run.CompilerError, match="refuses the generated C"):
        host_run.run(broken, int8_file, [np.zeros((1, 8, 8, 3), np.int8)])


def test_inputs_that_do_not_fit(int8_file):
    sources = generate.generate(int8_file)
    for wrong in ([], [np.zeros((1, 8, 8, 2), np.int8)], [np.zeros((1, 8, 8, 3), np.float32)]):
        with pytest.raises(ValueError, match="The model takes"):
            host_run.run(sources.files, int8_file, wrong)
