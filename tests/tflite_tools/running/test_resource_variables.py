"""What runtimes do with tensors that live on between calls (docs/decisions/0034)."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tflite_tools.running import runtime
from tflite_tools.schema import flatbuffer
from tflite_tools.schema.contents import load

GRID, ROWS, FILL = (0.05, 3), (1, 3, 1, 2), 3


class Variables:
    """A file that keeps the newest three rows in a variable and gives their maximum."""

    def __init__(self):
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, "made by hand"
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]
        self.model.subgraphs = [self.graph("main"), self.graph("first")]

    @staticmethod
    def graph(name):
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = name, [], []
        graph.inputs, graph.outputs = [], []
        return graph

    def tensor(self, graph, shape, dtype="INT8", data=None):
        tensor = schema.TensorT()
        tensor.name, tensor.shape = f"tensor{len(graph.tensors)}", list(shape)
        tensor.type, tensor.buffer, tensor.hasRank = getattr(schema.TensorType, dtype), 0, True
        if dtype == "INT8":
            flatbuffer.set_quantization(tensor, *GRID, axis=0)
        if data is not None:
            flatbuffer.set_constant(self.model, tensor, np.asarray(data))
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def op(self, graph, name, inputs, outputs, kind, **options):
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = getattr(schema.BuiltinOperator, name), 1
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, outputs
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
        operator.builtinOptions = getattr(schema, f"{kind}OptionsT")()
        for field, value in options.items():
            setattr(operator.builtinOptions, field, value)
        graph.operators.append(operator)

    def handle(self, graph):
        index = self.tensor(graph, (), "RESOURCE")
        self.op(graph, "VAR_HANDLE", [], [index], "VarHandle", container="", sharedName="rows")
        return index

    def file(self):
        main, first = self.model.subgraphs
        rows = self.tensor(first, ROWS, data=np.full(ROWS, FILL, np.int8))
        self.op(first, "ASSIGN_VARIABLE", [self.handle(first), rows], [], "AssignVariable")
        frame = self.tensor(main, (1, 1, 1, 2))
        begin = self.tensor(main, (4,), "INT32", np.array([0, 1, 0, 0], np.int32))
        size = self.tensor(main, (4,), "INT32", np.array([1, 2, 1, 2], np.int32))
        old, tail, new, out = (
            self.tensor(main, shape) for shape in (ROWS, (1, 2, 1, 2), ROWS, (1, 1, 1, 2))
        )
        self.op(main, "CALL_ONCE", [], [], "CallOnce", initSubgraphIndex=1)
        handle = self.handle(main)
        self.op(main, "READ_VARIABLE", [handle], [old], "ReadVariable")
        self.op(main, "SLICE", [old, begin, size], [tail], "Slice")
        self.op(main, "CONCATENATION", [tail, frame], [new], "Concatenation", axis=1)
        self.op(main, "ASSIGN_VARIABLE", [handle, new], [], "AssignVariable")
        window = {"filterHeight": 3, "filterWidth": 1, "strideH": 1, "strideW": 1, "padding": 1}
        self.op(main, "MAX_POOL_2D", [new], [out], "Pool2D", **window)
        main.inputs, main.outputs = [frame], [out]
        return load(flatbuffer.write(self.model))


@pytest.mark.parametrize("name", [runtime.LITERT, runtime.TFLM])
def test_a_variable_keeps_rows_from_call_to_call(name):
    if not runtime.available(name):
        pytest.skip(f"{name} is not installed")
    random = np.random.default_rng(0)
    frames = random.integers(-50, 50, (6, 1, 1, 2)).astype(np.int8)
    (made,) = runtime.run(Variables().file(), [frames], runtime=name).outputs
    seen = np.concatenate([np.full((2, 2), FILL, np.int8), frames.reshape(-1, 2)])
    expected = [seen[end - 3 : end].max(axis=0) for end in range(3, len(seen) + 1)]
    np.testing.assert_array_equal(made.reshape(-1, 2), expected)
