"""Generated C on emulated processors computes what TFLM computes (make test-device)."""

import dataclasses
import functools
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("tensorflow")
import sequence_nets
import tf_keras as keras
from dsp_layers import KINDS, at_the_bound, conv, depthwise_at_the_bound
from file_maker import Maker, convolution, few_digits, power_of_two, samples

import tfbinreg
from tflite_tools.c import boards, generate, stream_run
from tflite_tools.c.generate import Sources
from tflite_tools.c.host_run import CompilerError
from tflite_tools.checks import isolate
from tflite_tools.running import runtime
from tflite_tools.schema.contents import load

LOOPS = 1_000_000
STRICT = ("-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wconversion")
COUNTING = f"""#include "model.h"
void model_run(const int8_t *input0, int8_t *output0) {{
  uint32_t count = {LOOPS};
#ifdef __riscv
  __asm__ volatile("1: addi %0, %0, -1\\n bnez %0, 1b\\n" : "+r"(count));
#else
  __asm__ volatile("1: subs %0, %0, #1\\n bne 1b\\n" : "+l"(count) : : "cc");
#endif
  output0[0] = (int8_t)(input0[0] + 1);
}}
"""
HEADER = "#include <stdint.h>\nvoid model_run(const int8_t *input0, int8_t *output0);\n"


def one_value():
    """A model of one int8 input and output, and an input for it."""
    maker = Maker()
    maker.op("LOGISTIC", [maker.input((1, 1))], (1, 1), (1 / 256, -128))
    return maker.file(), [np.array([[5], [-7]], np.int8)]


def written(text):
    return Sources({"model.c": text, "model.h": HEADER}, 0, 0, 0)


def check(model, cpus, count=2):
    """The C of a file computes on each processor what TFLM computes."""
    inputs = samples(model, count)
    sources = generate.generate(model)
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    for cpu in cpus:
        made = boards.run(sources, model, inputs, cpu=cpu)
        assert made.instructions > 0
        for ours, theirs in zip(made.outputs, wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=cpu)
    return sources, inputs, wanted


@pytest.mark.device
def test_operators_of_every_kind(every_kind):
    alone = isolate.isolate(every_kind).model
    check(alone, ["cortex-m3", "cortex-m4"])


@pytest.mark.device
@pytest.mark.parametrize("name", ["causal", "strided", "over_features"])
def test_frames(name):
    model = sequence_nets.NETS[name](frames=40)
    sources, ((sequence,),) = generate.generate(model, streaming=True), samples(model, 1)
    (wanted,) = runtime.run(model, [sequence[None]], runtime=runtime.TFLM).outputs
    output, frames = sources.stream.output, stream_run.frames_of([sequence])
    for cpu in ("cortex-m3", "cortex-m4", "rv32imc"):
        made = boards.run_frames(sources, frames, cpu=cpu)
        assert made.given.tolist() == list(range(output.begin, 40, output.every))
        assert made.instructions.min() > 0
        expected = wanted.reshape(-1, made.outputs.shape[1])
        np.testing.assert_array_equal(made.outputs[: len(expected)], expected, err_msg=cpu)


def test_frames_of_a_network_that_takes_samples():
    model, (inputs,) = one_value()
    with pytest.raises(ValueError, match="takes whole samples"):
        boards.run_frames(generate.generate(model), inputs)


@pytest.mark.device
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"])
def test_convolutions(kind, bits):
    maker, random = Maker(), np.random.default_rng(bits)
    for _ in range(12):
        convolution(maker, random, kind, bits, True)
    check(maker.file(), boards.CPUS)


@pytest.mark.device
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_scales_that_are_powers_of_two(kind):
    maker, random = Maker(), np.random.default_rng(0)
    for bits in (2, 4, 8) * 4:
        convolution(maker, random, kind, bits, True, power_of_two)
    grids = ((2.0**-4, -9), (2.0**-6, 12), (2.0**-3, -20))
    a, b = (maker.input((1, 4, 4, 4), grid) for grid in grids[:2])
    maker.op("ADD", [a, b], (1, 4, 4, 4), grids[2], kind="AddOptions")
    sources, *_ = check(maker.file(), boards.CPUS)
    assert "#define TFB_SHIFT_STEPS 2" in sources.files["model.c"]


@pytest.mark.device
def test_constants_of_three_bytes():
    maker, random = Maker(), np.random.default_rng(6)
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV") * 3:
        convolution(maker, random, kind, 2, True, few_digits, bias_step=256)
    sources, *_ = check(maker.file(), boards.CPUS)
    assert "#define TFB_SHORT_CONSTANTS 1" in sources.files["model.c"]


@pytest.mark.device
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_at_their_edges(kind, bits):
    check(KINDS[kind](bits), boards.CPUS)


@pytest.mark.device
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("bound", [at_the_bound, depthwise_at_the_bound])
def test_two_sums_in_a_word_at_the_bound(bound, bits):
    model, inputs = bound(bits, -128)
    sources = generate.generate(model)
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    for cpu in ("cortex-m3", "rv32imc"):
        made = boards.run(sources, model, inputs, cpu=cpu)
        for ours, theirs in zip(made.outputs, wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=cpu)
            assert len(np.unique(theirs)) > 4


@pytest.mark.device
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_largest_sums_of_a_channel(bits):
    """With Helium 16 bits hold the sums of some filters: those of the least codes and inputs, or of
    two products of codes of 8 bits but for the least one."""
    maker = Maker()
    for least in (-(2 ** (bits - 1)), 1 - 2 ** (bits - 1)):
        for height, width in ((1, 31), (4, 8), (1, 15), (8, 2), (3, 3)):
            codes = np.full((1, height, width, 16), least)
            image = (height, width + 1, 16)
            conv(maker, image, codes, bits, zero=0, factor=2.0**-bits / 100, own=True)
    at_ends(maker.file())


@pytest.mark.device
@pytest.mark.parametrize("positions, zero", [(1, -128), (1, 0), (1, 127), (2, -128)])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_largest_sums_of_a_filter(bits, positions, zero):
    """Twice 255 * 127 * 33,000 is 2^31 less half a percent; more taps are refused."""
    maker, high = Maker(), 2 ** (bits - 1)
    taps = 33_000 * 127 // (high * 2 ** (8 - bits)) // 8 * 8
    ends = np.array([high - 1, 1 - high, high - 1])[:, None, None, None]
    codes = ends * np.ones((1, 1, 1, taps), np.int64)
    conv(maker, (1, positions, taps), codes, bits, zero=zero, factor=2e-8 * 2.0 ** (8 - bits))
    at_ends(maker.file())


def at_ends(model):
    """With Helium layers compute what TFLM computes of the least and of the largest inputs."""
    shapes = [model.main.tensors[index].shape for index in model.main.inputs]
    inputs = [np.stack([np.full(s[1:], value, np.int8) for value in (-128, 127)]) for s in shapes]
    sources = generate.generate(model)
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    made = boards.run(sources, model, inputs, cpu="cortex-m55")
    for ours, theirs in zip(made.outputs, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert len(np.unique(theirs)) > 2


@pytest.mark.device
def test_every_operator_is_counted():
    maker, random = Maker(), np.random.default_rng(0)
    for _ in range(3):
        convolution(maker, random, "CONV_2D", 4, True)
    model = maker.file()
    whole = boards.run(generate.generate(model), model, samples(model, 2))
    parts = boards.run(generate.generate(model), model, samples(model, 2), by_step=True)
    assert whole.steps == () and len(parts.steps) == 3
    assert whole.instructions <= sum(parts.steps) < whole.instructions + 200
    for ours, theirs in zip(whole.outputs, parts.outputs, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def net():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((16, 16, 3))
    x = layers.ReLU()(layers.Conv2D(12, 3, 2, padding="same")(image))
    x = layers.ReLU()(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Add()([layers.Conv2D(12, 1)(x), x])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Conv2D(20, 3)(x)))
    return keras.Model(image, layers.Dense(7, activation="softmax")(layers.Dense(30)(x)))


@functools.cache
def quantized_net(bits):
    """The file of that net, with weights of so many bits."""
    random = np.random.default_rng(0)
    images = random.normal(size=(32, 16, 16, 3)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(net(), weight_bits=bits, calibration_data=images)
    tfbinreg.finalize(quantized, images)
    return load(tfbinreg.to_tflite(quantized))


@pytest.mark.device
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_net(bits):
    sources, inputs, wanted = check(model := quantized_net(bits), boards.CPUS, count=8)
    changed = {name: text.replace(".out_zero = ", ".out_zero = 30 + ")
               for name, text in sources.files.items()}  # fmt: skip
    made = boards.run(dataclasses.replace(sources, files=changed), model, inputs)
    assert np.any(made.outputs[0] != wanted[0])


def built_by_clang(sources, cpu, flags, folder):
    """The sources, and the flags with which the board's compiler takes the network from Clang."""
    for name, text in sources.files.items():
        (folder / name).write_text(text)
    tools, own = boards.CPUS[cpu].tools, folder / "model.o"
    specs = subprocess.check_output([tools.gcc, "-print-file-name=nano.specs"], text=True).strip()
    include = pathlib.Path(specs).parents[1] / "include"
    subprocess.run(
        ["clang", "--target=arm-none-eabi", "-std=c99", *STRICT, "-isystem", include, *flags,
         *tools.flags, *boards.CPUS[cpu].flags, "-c", folder / "model.c", "-o", own],
        check=True,
    )  # fmt: skip
    nothing = {**sources.files, "model.c": "typedef int nothing;\n"}
    return dataclasses.replace(sources, files=nothing), (*flags, str(own))


@pytest.mark.device
@pytest.mark.skipif(shutil.which("clang") is None, reason="Clang is not installed")
@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("cpu", ["cortex-m3", "cortex-m4", "cortex-m55"])
def test_clang_computes_the_same(cpu, bits, tmp_path):
    """Arm's own compiler is Clang, too."""
    model = quantized_net(bits)
    inputs = samples(model, 2)
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    for level in ("-Os", "-O3"):
        sources, flags = built_by_clang(generate.generate(model), cpu, (level,), tmp_path)
        made = boards.run(sources, model, inputs, cpu=cpu, flags=flags)
        np.testing.assert_array_equal(made.outputs[0], wanted[0], err_msg=level)


@pytest.mark.device
@pytest.mark.parametrize("cpu", ["cortex-m4", "cortex-a7"])
def test_gcc_compiles_without_thumb(cpu, tmp_path):
    """Cortex-A7 and the like have the DSP instructions, but others than Thumb-2's beside them."""
    for name, text in generate.generate(quantized_net(2)).files.items():
        (tmp_path / name).write_text(text)
    state = "-marm" if cpu == "cortex-a7" else "-mthumb"
    flags = ["-std=c99", *STRICT, "-O2", f"-mcpu={cpu}", state]
    command = ["arm-none-eabi-gcc", *flags, "-c", "model.c", "-o", "model.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    listing = subprocess.check_output(["arm-none-eabi-objdump", "-d", "model.o"], cwd=tmp_path)
    assert b"smlad" in listing


@pytest.mark.device
@pytest.mark.parametrize("cpu", boards.CPUS)
def test_instructions_are_counted(cpu):
    model, inputs = one_value()
    done = boards.run(written(COUNTING), model, inputs, cpu=cpu)
    np.testing.assert_array_equal(done.outputs[0], inputs[0] + 1)
    assert 2 * LOOPS < done.instructions < 2 * LOOPS + 20
    assert done.instructions == boards.run(written(COUNTING), model, inputs, cpu=cpu).instructions


@pytest.mark.device
def test_sizes():
    text = (
        '#include "model.h"\nstatic const uint8_t table[1000] = {1};\nstatic int8_t arena[500];\n'
    )
    text += COUNTING.split("\n", 1)[1].replace(
        "input0[0] + 1", "arena[input0[0]]++ + table[*input0]"
    )
    sizes = boards.size(written(text))
    assert sizes.rodata == 1000
    assert sizes.bss == 500
    assert sizes.data == 0
    assert 10 < sizes.text < 200


@pytest.mark.device
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int nothing;", "-gcc failed"),
        (COUNTING.replace("output0[0]", "__builtin_trap(); output0[0]"), "qemu-system-.* failed"),
        (
            COUNTING.replace(
                "output0[0]", "static char a[5000000]; output0[0] = a[*input0]++; a[0]"
            ),
            "does not fit",
        ),
        (COUNTING.replace("output0[0]", "for (;;) *(volatile int8_t *)output0"), "not finish in 1"),
    ],
)
@pytest.mark.parametrize("cpu", ["cortex-m4", "rv32imc"])
def test_what_fails(text, message, cpu):
    model, inputs = one_value()
    with pytest.raises(CompilerError, match=message):
        limit = 1.0 if "not finish" in message else 60.0
        boards.run(written(text), model, inputs, cpu=cpu, time_limit=limit)


def test_processors_are_known():
    with pytest.raises(ValueError, match="no board with a 'cortex-m0': use cortex-m3, cortex-m4"):
        boards.size(written(COUNTING), cpu="cortex-m0")


def test_missing_tools_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    packages = ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi", "qemu-system-arm")
    assert boards.missing(["cortex-m4", "cortex-m3"]) == packages
    assert boards.missing() == (*packages, "gcc-riscv64-unknown-elf", "qemu-system-misc")
    model, inputs = one_value()
    with pytest.raises(CompilerError, match=f"Not installed: {', '.join(packages)}"):
        boards.run(written(COUNTING), model, inputs)


def test_a_compiler_without_its_library(monkeypatch, tmp_path):
    for name, text in (("arm-none-eabi-gcc", "echo nano.specs"), ("qemu-system-arm", "true")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert boards.missing(["cortex-m4"]) == ("libnewlib-arm-none-eabi",)
