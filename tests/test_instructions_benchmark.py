"""What the benchmarks of generated C on emulated processors count, and what they call."""

import dataclasses
import importlib
import pathlib

import pytest
from dsp_layers import blocks, depthwise, used_once

from tflite_tools.checks import isolate


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module


def test_products_of_layers(benchmark):
    products = benchmark("instructions").products
    first, *_ = (model := blocks(4)).main.ops
    assert products(model, first) == 3 * 4 * 3  # 3 x 4 positions, 1 channel, 3 filters
    first, *_ = (model := depthwise(4)).main.ops
    assert products(model, first) == 11 * 6 * 4 * 9


def test_layers_are_counted_that_take_steps(benchmark):
    model = used_once(2)
    assert benchmark("instructions").stepped(model) == list(model.main.ops)


def test_a_kernel_of_cmsis_nn_is_called_for_each_layer(benchmark):
    cmsis_nn = benchmark("cmsis_nn")
    for model, call in ((blocks(4), "arm_convolve_wrapper_s8(&work"),
                        (depthwise(4), "arm_depthwise_conv_wrapper_s8(&work")):  # fmt: skip
        program = cmsis_nn.Program(isolate.isolate(model).model)
        text = program.sources().files["model.c"]
        assert len(program.ops) == text.count(call) == text.count("  /* ") == len(model.main.ops)


def test_what_is_no_checkout_is_refused(benchmark, tmp_path):
    with pytest.raises(SystemExit, match="is it a checkout of CMSIS-NN"):
        benchmark("cmsis_nn").objects(tmp_path, "cortex-m4", tmp_path)


def test_sums_are_ratios_of_all_layers_and_of_each_kind(benchmark):
    layers = [("CONV_2D", "", 100, 150, 300), ("ADD", "", 0, 50, 100)]
    found = benchmark("cmsis_nn")._sums(layers)
    assert found == ["2.000", "4.000", "0.50", "0.50", "", "", "0.50"]


@pytest.mark.device
def test_outputs_that_differ_are_counted(benchmark, monkeypatch):
    exact, model = benchmark("exact"), blocks(4)
    [(count, wrong)] = exact.compared(model, 100, ["cortex-m4"])
    assert count >= 100 and wrong == 0
    whole = exact.generate.generate

    def changed(model):
        sources = whole(model)
        text = sources.files["model.c"].replace(".out_zero = ", ".out_zero = 30 + ")
        return dataclasses.replace(sources, files={**sources.files, "model.c": text})

    monkeypatch.setattr(exact.generate, "generate", changed)
    assert exact.compared(model, 100, ["cortex-m4"])[0][1] > 0
