"""Generated C compared with CMSIS-NN: instructions of each common layer, on emulated boards.

    python benchmarks/cmsis_nn.py --cmsis_nn DIR [--nets ...] [--bits ...] [--cpus ...]

DIR is a checkout of https://github.com/ARM-software/CMSIS-NN; no part of it is stored. Its int8
kernels (convolution, depthwise convolution, dense layer, addition) are built with -O3 and run on
the canonical int8 file's weights, each layer on int8 noise. Layers whose outputs differ from TFLM's
are named and left out. The C is built with -O2 and counted as a whole net. --layers prints each
layer.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import device_nets
import instructions
import numpy as np
from measure import table

from tflite_tools.arithmetic import fixed_point, geometry, multipliers
from tflite_tools.c import boards, generate
from tflite_tools.c.generate import Sources
from tflite_tools.checks import isolate
from tflite_tools.running import runtime
from tflite_tools.schema.contents import Model, Op, Tensor

CPUS = ("cortex-m4", "cortex-m33")
LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD")
_PARTS = ("ConvolutionFunctions", "FullyConnectedFunctions", "NNSupportFunctions",
          "BasicMathFunctions", "TransposeFunctions")  # fmt: skip
_BUFFER = 2**17  # bytes for what a kernel asks for


def objects(checkout: pathlib.Path, cpu: str, folder: pathlib.Path) -> list[str]:
    """The integer kernels, compiled for a processor into `folder`."""
    sources = [
        path
        for part in _PARTS
        for path in sorted((checkout / "Source" / part).glob("*.c"))
        if not path.stem.endswith(("_f16", "_f32"))
    ]
    if not sources:
        raise SystemExit(f"No sources in {checkout}: is it a checkout of CMSIS-NN?")
    command = ["arm-none-eabi-gcc", "-c", "-O3", "-w", "-mthumb", f"-mcpu={cpu}"]
    command += [*boards.CPUS[cpu].flags, "-ffunction-sections"]
    command.append(f"-I{checkout.resolve() / 'Include'}")
    subprocess.run([*command, *(str(path.resolve()) for path in sources)], cwd=folder, check=True)
    return [str(folder / f"{path.stem}.o") for path in sources]


class Program:
    """C that calls a kernel of CMSIS-NN for every layer of a file of isolated operators."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._constants: list[str] = []
        self._body: list[str] = []
        self.ops: list[Op] = []
        inputs = iter(range(len(model.main.inputs)))
        for number, op in enumerate(model.main.ops):
            taken = [self._tensor(index) for index in op.inputs if index >= 0]
            places = [f"input{next(inputs)}" for t in taken if t.data is None]
            if op.name in LAYERS and (op.name != "ADD" or self._plain_sum(op)):
                self.ops.append(op)
                made = self._model.main.tensors[op.outputs[0]]
                self._body.append(f"  /* {op.name}: {number} */\n  {{")
                self._body += [f"    {line}" for line in self._call(op, number, places, made)]
                self._body.append("  }")

    def sources(self) -> Sources:
        """The files for the board."""
        graph = self._model.main
        parameters = [f"const int8_t *input{k}" for k in range(len(graph.inputs))]
        parameters += [f"int8_t *output{k}" for k in range(len(graph.outputs))]
        declared = f"void model_run({', '.join(parameters)})"
        unused = [f"  (void)input{k};" for k in range(len(graph.inputs))]
        unused += [f"  (void)output{k};" for k in range(len(graph.outputs))]
        text = "\n".join([
            '#include "model.h"', '#include "arm_nnfunctions.h"',
            f"static int32_t buffer[{_BUFFER // 4}];",
            f"static void fits(int32_t size) {{ if (size > {_BUFFER}) __builtin_trap(); }}",
            *self._constants, f"{declared} {{", *unused, *self._body, "}", "",
        ])  # fmt: skip
        return Sources({"model.c": text, "model.h": f"#include <stdint.h>\n{declared};\n"}, 0, 0, 0)

    def _tensor(self, index: int) -> Tensor:
        return self._model.main.tensors[index]

    def _plain_sum(self, op: Op) -> bool:
        a, b = (self._tensor(index) for index in op.inputs)
        return a.shape == b.shape and a.data is None and b.data is None

    def _array(self, name: str, values: np.ndarray, ctype: str) -> str:
        listed = ", ".join(map(str, values.reshape(-1).tolist()))
        self._constants.append(f"static const {ctype} {name}[] = {{{listed}}};")
        return name

    def _call(self, op: Op, number: int, places: list[str], made: Tensor) -> list[str]:
        low, high = fixed_point.activation_limits(op.activation, *_grid(made))
        limits = f".activation = {{{low}, {high}}}"
        output = f"output{list(self._model.main.outputs).index(op.outputs[0])}"
        if op.name == "ADD":
            return self._sum(op, places, made, output, (low, high))
        source, weights = self._tensor(op.inputs[0]), self._tensor(op.inputs[1])
        pairs = multipliers.kernel(weights.quantization.scale, _grid(source)[0], _grid(made)[0])
        depthwise = op.name == "DEPTHWISE_CONV_2D"
        channels = weights.shape[3 if depthwise else 0]
        pairs = pairs if op.name == "FULLY_CONNECTED" or len(pairs) > 1 else pairs * channels
        factor = self._array(f"m{number}", np.array([m for m, _ in pairs]), "int32_t")
        shift = self._array(f"s{number}", np.array([s for _, s in pairs]), "int32_t")
        row = self._array(f"w{number}", weights.data.astype(np.int8), "int8_t")
        bias = "NULL"
        if len(op.inputs) > 2 and op.inputs[2] >= 0:
            bias = self._array(f"b{number}", self._tensor(op.inputs[2]).data, "int32_t")
        offsets = f".input_offset = {-_grid(source)[1]}, .output_offset = {_grid(made)[1]}"
        quantizer = f"(int32_t *)(uintptr_t){factor}, (int32_t *)(uintptr_t){shift}"
        tail = f"&bias, {bias}, &to, {output});"
        lines = [f"cmsis_nn_dims bias = {{{channels}, 1, 1, 1}};",
                 "cmsis_nn_context work = {buffer, sizeof buffer};"]  # fmt: skip
        if op.name == "FULLY_CONNECTED":
            depth = weights.shape[1]
            rows = int(np.prod(source.shape)) // depth
            sums = f"sums{number}"
            self._constants.append(f"static int32_t {sums}[{channels}], ready{number};")
            return [
                *lines, f"cmsis_nn_fc_params params = {{{offsets}, .filter_offset = 0, {limits}}};",
                f"cmsis_nn_quant_params quantizer = {{{quantizer}, {int(len(pairs) > 1)}}};",
                f"cmsis_nn_dims from = {{{rows}, 1, 1, {depth}}};",
                f"cmsis_nn_dims filter = {{{depth}, 1, 1, {channels}}};",
                f"cmsis_nn_dims to = {{{rows}, 1, 1, {channels}}};",
                # A network sums its constant weights when it starts, where a kernel needs that.
                f"if (!ready{number} && arm_fully_connected_s8_get_buffer_size(&filter) > 0)",
                f"  arm_vector_sum_s8({sums}, {depth}, {channels}, {row}, {-_grid(source)[1]}, 0,"
                f" {bias});",
                f"ready{number} = 1;", f"work.buf = {sums};", f"work.size = sizeof {sums};",
                f"arm_fully_connected_wrapper_s8(&work, &params, &quantizer, &from, {places[0]},"
                f" &filter, {row}, {tail}",
            ]  # fmt: skip
        kind, record = ("depthwise_conv", "dw_conv") if depthwise else ("convolve", "conv")
        strides, padding, dilations = _windows(op, source, weights)
        multiple = f".ch_mult = {channels // source.shape[3]}, " if depthwise else ""
        return [
            *lines, f"cmsis_nn_{record}_params params = {{{offsets}, {multiple}"
            f".stride = {_tile(strides)}, .padding = {_tile(padding)},"
            f" .dilation = {_tile(dilations)}, {limits}}};",
            f"cmsis_nn_per_channel_quant_params quantizer = {{{quantizer}}};",
            f"cmsis_nn_dims from = {_dims(source.shape)}, to = {_dims(made.shape)};",
            f"cmsis_nn_dims filter = {_dims(weights.shape)};",
            f"fits(arm_{kind}_wrapper_s8_get_buffer_size(&params, &from, &filter, &to));",
            f"arm_{kind}_wrapper_s8(&work, &params, &quantizer, &from, {places[0]}, &filter, {row},"
            f" {tail}",
        ]  # fmt: skip

    def _sum(
        self, op: Op, places: list[str], made: Tensor, output: str, limits: tuple[int, int]
    ) -> list[str]:
        grids = [_grid(self._tensor(index)) for index in op.inputs]
        first, second, whole = multipliers.addition(grids[0][0], grids[1][0], _grid(made)[0])
        return [
            f"arm_elementwise_add_s8({places[0]}, {places[1]}, {-grids[0][1]}, {first[0]},"
            f" {first[1]}, {-grids[1][1]}, {second[0]}, {second[1]}, {multipliers.FINER_BITS},"
            f" {output}, {_grid(made)[1]}, {whole[0]}, {whole[1]}, {limits[0]}, {limits[1]},"
            f" {int(np.prod(made.shape))});"
        ]


def _grid(tensor: Tensor) -> tuple[np.float32, int]:
    return np.float32(tensor.quantization.scale[0]), int(tensor.quantization.zero_point[0])


def _dims(shape: Sequence[int]) -> str:
    return "{" + ", ".join(map(str, shape)) + "}"


def _tile(pair: tuple[int, int]) -> str:
    """Width and height."""
    return f"{{{pair[1]}, {pair[0]}}}"


def _windows(op: Op, source: Tensor, weights: Tensor) -> tuple[tuple[int, int], ...]:
    """Strides, padding in front, and dilations, each (height, width)."""
    options = op.options
    strides = options["strideH"], options["strideW"]
    dilations = options.get("dilationHFactor", 1), options.get("dilationWFactor", 1)
    sizes = zip(source.shape[1:3], weights.shape[1:3], strides, dilations, strict=True)
    padding = [geometry.window(*each, options["padding"])[1] for each in sizes]
    return strides, (padding[0], padding[1]), dilations


def theirs(model: Model, cpu: str, flags: Sequence[str]) -> list[tuple[Op, int]]:
    """CMSIS-NN's instructions for every layer that it has and whose outputs are TFLM's."""
    alone = isolate.isolate(model).model
    random = np.random.default_rng(1)
    shapes = [alone.main.tensors[index].shape for index in alone.main.inputs]
    inputs = [random.integers(-128, 128, (2, *shape[1:])).astype(np.int8) for shape in shapes]
    program = Program(alone)
    ran = boards.run(program.sources(), alone, inputs, cpu=cpu, flags=flags, by_step=True)
    wanted = runtime.run(alone, inputs, runtime=runtime.TFLM).outputs
    found = []
    for op, count in zip(program.ops, ran.steps, strict=True):
        place = list(alone.main.outputs).index(op.outputs[0])
        if np.array_equal(ran.outputs[place], wanted[place]):
            found.append((op, count))
        else:
            shape = list(alone.main.tensors[op.outputs[0]].shape)
            print(f"left out, CMSIS-NN computes other outputs than TFLM: {op.name} {shape}")
    return found


def compared(
    name: str, bits: int, cpu: str, flags: Sequence[str], folder: str | None
) -> list[tuple[str, str, int, int, int]]:
    """Every common layer: operator, output, multiplications, our and their instructions."""
    model = device_nets.file(name, bits, folder)
    ran = boards.run(
        generate.generate(model), model, instructions.noise(model), cpu=cpu, by_step=True
    )
    own = iter(zip(instructions.stepped(model), ran.steps, strict=True))
    found = []
    for op, count in theirs(model, cpu, flags):
        ours = next(n for mine, n in own if mine.outputs == op.outputs)
        shape = model.main.tensors[op.outputs[0]].shape
        found.append((op.name, f"{list(shape)}", instructions.products(model, op), ours, count))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cmsis_nn", required=True, metavar="DIR", type=pathlib.Path)
    parser.add_argument("--nets", nargs="+", default=list(device_nets.NETS))
    parser.add_argument("--bits", nargs="+", type=int, default=[2, 8])
    parser.add_argument("--cpus", nargs="+", choices=boards.CPUS, default=list(CPUS))
    parser.add_argument("--folder", metavar="DIR", help="save the nets here and reuse them")
    parser.add_argument("--layers", action="store_true", help="print every layer")
    options = parser.parse_args(arguments)
    rows = []
    for cpu in options.cpus:
        with tempfile.TemporaryDirectory(prefix="cmsis_nn_") as folder:
            built = objects(options.cmsis_nn, cpu, pathlib.Path(folder))
            include = f"-I{options.cmsis_nn.resolve() / 'Include'}"
            for name in options.nets:
                for bits in options.bits:
                    flags = ("-O2", "-w", include, *built)
                    layers = compared(name, bits, cpu, flags, options.folder)
                    if options.layers:
                        print(f"{name} W{bits}, {cpu}\n\n{_layers(layers)}\n")
                    rows.append([f"{name} W{bits}", cpu, *_sums(layers)])
    names = ["net", "processor", "ours", "CMSIS-NN", "ratio", *(f"{layer}" for layer in LAYERS)]
    print(table(names, rows))


def _layers(layers: list[tuple[str, str, int, int, int]]) -> str:
    rows = [
        [name, shape, f"{count or ''}", f"{ours}", f"{count_theirs}", f"{ours / count_theirs:.2f}"]
        for name, shape, count, ours, count_theirs in layers
    ]
    return table(["layer", "output", "products", "ours", "CMSIS-NN", "ratio"], rows)


def _sums(layers: list[tuple[str, str, int, int, int]]) -> list[str]:
    """Instructions per multiplication of both, their ratio, and the ratio for each kind."""
    products = sum(layer[2] for layer in layers)
    ours, others = (sum(layer[place] for layer in layers) for place in (3, 4))
    kinds = []
    for kind in LAYERS:
        of_kind = [layer[3:] for layer in layers if layer[0] == kind]
        sums = np.sum(of_kind, axis=0) if of_kind else None
        kinds.append("" if sums is None else f"{sums[0] / sums[1]:.2f}")
    return [f"{ours / products:.3f}", f"{others / products:.3f}", f"{ours / others:.2f}", *kinds]


if __name__ == "__main__":
    main()
