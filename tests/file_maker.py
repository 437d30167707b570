"""Makes .tflite files by hand, for operators and settings that the exporter does not write."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_tools.schema import flatbuffer, manifest
from tflite_tools.schema.contents import written

_CODES = {name: code for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
PRESCALES = {2: 32, 3: 16, 4: 8, 8: 1}
GROUPED = "CONV_2D in groups"
ACTIVATIONS = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}

_TYPES = {np.int8: "INT8", np.int32: "INT32", np.float32: "FLOAT32"}


class Maker:
    """A file with one subgraph."""

    def __init__(self):
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.description = 3, "made by hand"
        self.model.subgraphs, self.model.operatorCodes = [self.graph], []
        self.model.buffers = [schema.BufferT()]
        self.graph.tensors, self.graph.operators = [], []
        self.inputs, self.outputs, self.layers = [], [], []

    def tensor(self, shape, grid=None, *, data=None, dtype=np.int8, axis=0, name=None):
        """Add a tensor; `grid` is (scale or scales, zero point). Returns its index."""
        tensor = schema.TensorT()
        tensor.name = name or f"tensor{len(self.graph.tensors)}"
        tensor.shape = list(shape)
        tensor.buffer = 0
        dtype = dtype if data is None else data.dtype.type
        tensor.type = getattr(schema.TensorType, _TYPES[dtype])
        if grid is not None:
            flatbuffer.set_quantization(tensor, *grid, axis=axis)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def input(self, shape, grid=(0.05, 3)):
        """Add an input of the model."""
        self.inputs.append(self.tensor(shape, grid))
        return self.inputs[-1]

    def ints(self, values):
        """Add a constant of int32."""
        array = np.array(values, np.int32)
        return self.tensor(array.shape, data=array)

    def weights(self, codes, bits, prescale, scales, axis=0, name=None):
        """Add weights and the manifest's entry for them."""
        stored = (codes * prescale).astype(np.int8)
        index = self.tensor(codes.shape, (scales, 0), data=stored, axis=axis, name=name)
        tensor = self.graph.tensors[index].name
        digest = manifest.codes_digest(codes.astype(np.int8))
        self.layers.append(
            manifest.LayerEntry(tensor, "Conv2D", tensor, bits, prescale, codes.shape, digest)
        )
        return index

    def op(self, name, inputs, shape, grid=(0.1, -7), options=None, *, kind=None, output=True):
        """Add an operator with a new output tensor, which by default is one of the model's."""
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = _CODES[name], 1
        code.deprecatedBuiltinCode = min(_CODES[name], 127)
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs = list(inputs)
        operator.outputs = [self.tensor(shape, grid)]
        if kind is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(schema, f"{kind}T")()
            for field, value in (options or {}).items():
                assert hasattr(operator.builtinOptions, field)
                setattr(operator.builtinOptions, field, value)
        self.graph.operators.append(operator)
        if output:
            self.outputs.append(operator.outputs[0])
        return operator.outputs[0]

    def file(self):
        """The file."""
        self.graph.inputs, self.graph.outputs = self.inputs, self.outputs
        header = manifest.Manifest({}, {}, tuple(self.layers), ())
        flatbuffer.set_metadata(self.model, manifest.METADATA_NAME, header.to_json().encode())
        return written(self.model)


def samples(file, count, seed=0):
    """`count` samples of every input, over the whole range of int8."""
    graph, random = file.main, np.random.default_rng(seed)
    shapes = [graph.tensors[index].shape for index in graph.inputs]
    drawn = [random.integers(-128, 128, (count, *shape[1:])).astype(np.int8) for shape in shapes]
    for array in drawn:  # all values at once, so that tables are seen whole
        flat = array.reshape(-1)
        flat[: min(256, flat.size)] = np.arange(-128, 128)[: flat.size]
    return drawn


def power_of_two(scales):
    """The nearest powers of two."""
    return 2.0 ** np.round(np.log2(scales))


def few_digits(scales):
    """Powers of two, and numbers of nine binary digits for the scales of channels."""
    if np.ndim(scales) == 0:
        return power_of_two(scales)
    fractions, exponents = np.frexp(scales)
    return np.ldexp(np.round(fractions * 2**9) / 2**9, exponents)


def convolution(maker, random, kind, bits, per_channel, rounded=lambda scales: scales, bias_step=1):
    """A convolution with random shape, stride, dilation, padding, zero points and activation,
    scales that are `rounded`, and biases that are multiples of `bias_step`."""
    height, width = (int(size) for size in random.integers(5, 10, 2))
    if random.integers(4) == 0:
        width = int(random.integers(33, 70))  # beyond the sums that a kernel keeps
    depth, channels = (int(size) for size in random.integers(1, 7, 2))
    k_h, k_w = (int(size) for size in random.integers(1, 4, 2))
    stride_h = stride_w = int(random.integers(1, 3))
    dilations = [1, 1] if stride_h > 1 else random.integers(1, 3, 2).tolist()
    padding = int(random.integers(2))
    if kind == "DEPTHWISE_CONV_2D":
        channels, shape, axis = depth * 2, (1, k_h, k_w, depth * 2), 3
    elif kind == GROUPED:
        groups, own = int(random.integers(2, 5)), depth
        depth, channels = depth * groups, channels * groups
        shape, axis = (channels, k_h, k_w, own), 0
    else:
        shape, axis = (channels, k_h, k_w, depth), 0
    low, high = (-127, 128) if bits == 8 else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    codes = random.integers(low, high, shape)
    prescale = PRESCALES[bits]
    scales = random.uniform(0.5, 2.0, channels if per_channel else 1).astype(np.float32)
    scales = rounded(scales * np.float32(0.02 / prescale / high)).astype(np.float32)
    zero = int(random.integers(-128, 128))
    in_scale = float(rounded(random.uniform(0.02, 0.1)))
    source = maker.input((1, height, width, depth), (in_scale, zero))
    weights = maker.weights(codes, bits, prescale, scales, axis)
    large = 2000 if random.integers(2) else 100000  # biases of 16 and of 32 bits
    bias = (random.integers(-large, large, channels) // bias_step * bias_step).astype(np.int32)
    places = [source, weights, maker.tensor(bias.shape, (scales, 0), data=bias)]
    activation = int(random.choice(list(ACTIVATIONS.values())))
    options = {"strideH": stride_h, "strideW": stride_w, "padding": padding}
    options["fusedActivationFunction"] = activation
    reach = [(k_h - 1) * dilations[0] + 1, (k_w - 1) * dilations[1] + 1]
    sizes = [
        -(-size // stride_h) if padding == 0 else (size - r) // stride_h + 1
        for size, r in zip((height, width), reach, strict=True)
    ]
    if kind == "TRANSPOSE_CONV":
        sizes = [
            size * stride_h if padding == 0 else (size - 1) * stride_h + k
            for size, k in zip((height, width), (k_h, k_w), strict=True)
        ]
        places = [maker.ints([1, *sizes, channels]), weights, source, places[2]]
    else:
        options |= {"dilationHFactor": dilations[0], "dilationWFactor": dilations[1]}
    if kind == "DEPTHWISE_CONV_2D":
        options["depthMultiplier"] = 2
    grid = (float(rounded(random.uniform(0.004, 0.05))), int(random.integers(-128, 128)))
    kind = "CONV_2D" if kind == GROUPED else kind
    name = {
        "CONV_2D": "Conv2DOptions",
        "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
        "TRANSPOSE_CONV": "TransposeConvOptions",
    }[kind]
    maker.op(kind, places, (1, *sizes, channels), grid, options, kind=name)
