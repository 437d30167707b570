"""The pure helpers of the benchmarks; nothing here is timed."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfbinreg.methods.bin_regularization import bin_regularization

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _import_from_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def _module(name):
    return importlib.import_module(name)


def test_summary_is_median_and_quartiles():
    summary = _module("measure").Summary.of([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (summary.median, summary.lower, summary.upper) == (3.0, 2.0, 4.0)


def test_summary_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        _module("measure").Summary.of([])


def test_paired_ratio_is_not_the_ratio_of_medians():
    # Rounds 1 to 3 are slowed down 1, 2 and 10 times; every pair says 1.5, but for the noisy last.
    ratio = _module("measure").paired_ratio([1.5, 3.0, 10.0], [1.0, 2.0, 10.0])
    assert ratio.median == 1.5


def test_paired_ratio_needs_pairs():
    with pytest.raises(ValueError, match="got 2 and 1"):
        _module("measure").paired_ratio([1.0, 2.0], [1.0])


def test_interleave_takes_turns_and_reverses():
    order = []
    functions = {name: lambda steps, name=name: order.append(name) or steps for name in "abc"}
    results = _module("measure").interleave(functions, rounds=2, steps=7)
    assert "".join(order) == "abccba"
    assert results == {"a": [7, 7], "b": [7, 7], "c": [7, 7]}


def test_table_aligns_columns():
    text = _module("measure").table(("name", "ms"), [("a", "10.5"), ("longer", "2")])
    assert text.splitlines() == ["name      ms", "a       10.5", "longer     2"]


def test_ratios_know_their_targets():
    step_time = _module("step_time")
    rows = step_time.ratios({"lsq2": [1.0, 2.0], "br2": [1.01, 2.02], "float": [0.5, 1.0]})
    found = {(row["variant"], row["baseline"]): (row["median"], row["met"]) for row in rows}
    assert found == {
        ("br2", "lsq2"): (pytest.approx(1.01), True),
        ("lsq2", "float"): (pytest.approx(2.0), False),
    }


def test_what_needs_adam_is_not_timed_without_it():
    parse = _module("step_time").parse_arguments
    assert "alq" not in parse([]).variants and "lsq2" in parse([]).variants
    assert "alq" in parse(["--optimizer", "adam"]).variants
    with pytest.raises(SystemExit):
        parse(["--variants", "alq"])


def test_every_ratio_is_between_variants():
    step_time = _module("step_time")
    assert {name for pair in step_time.RATIOS for name in pair} <= set(step_time.VARIANTS)


@pytest.mark.parametrize(("qmin", "qmax"), [(-2, 1), (-4, 3), (-127, 127)])
def test_textbook_penalty_equals_ours(qmin, qmax):
    textbook = _module("textbook").textbook_bin_regularization
    weights = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 4, 5)), tf.float32)
    step = tf.constant(0.37)  # clips at 2 bits, leaves bins empty at 8
    values, gradients = [], []
    for penalty in (textbook, bin_regularization):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = penalty(weights, step, qmin, qmax)
        values.append(value)
        gradients.append(tape.gradient(value, weights))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_networks_have_the_published_sizes():
    nets = _module("nets").NETS
    assert nets["resnet8"].build().count_params() == 78_666
    batch = nets["resnet8"].random_batch(seed=1)
    assert batch[0].shape == (128, 32, 32, 3)
    assert batch[1].max() < 10


class TestFirstTry:
    def test_arms(self):
        first_try = _module("first_try")
        assert first_try.read_arm("start") == first_try.Arm("start")
        assert first_try.read_arm("sgd-0.02") == first_try.Arm("sgd", 0.02)
        wanted = first_try.Arm("adam", 0.001, step_scale=10.0, weight_start="mse")
        assert first_try.read_arm("adam-0.001-s=10-start=mse") == wanted

    def test_runs_that_are_there_are_left_out(self, tmp_path):
        first_try = _module("first_try")
        results = tmp_path / "results.jsonl"
        options = first_try.parse(["--results", str(results), "--seeds", "0", "1"])
        every = first_try.wanted(options)
        assert len(every) == len(set(every)) == 2 * 3 * 2 * 2
        assert {values[4] for values in every[:12]} == {0}  # seed by seed
        lines = [json.dumps(dict(zip(first_try.KEYS, values, strict=True))) for values in every[:5]]
        results.write_text("\n".join(lines) + "\n")
        assert first_try.wanted(options) == every[5:]
        options = first_try.parse(["--results", str(results), "--seeds", "0", "--epochs", "9"])
        assert len(first_try.wanted(options)) == 12

    def test_table_has_mean_and_standard_deviation(self):
        line = {"code": "after", "net": "dscnn", "bits": "2,8", "arm": "sgd-0.1", "choice": 7.0}
        lines = [{**line, "seed": n, "test": 80.0 + n} for n in (0, 1, 2)]
        text = _module("first_try").table([*lines, {**lines[0], "code": "before"}])
        assert text.splitlines()[2:] == [
            "| dscnn | W2A8 | after | sgd-0.1 | 3 | 7.0 ± 0.0 | 81.0 ± 1.0 |",
            "| dscnn | W2A8 | before | sgd-0.1 | 1 | 7.0 | 80.0 |",
        ]

    def test_steps_move_by_the_scale_times_their_size(self):
        first_try = _module("first_try")
        optimizer = first_try.optimizer(first_try.read_arm("adam-0.01-s=5"), 100)
        kernel = tf.Variable(2.0, name="kernel")
        step = tf.Variable(0.5, name="kernel_step")
        optimizer.apply_gradients([(tf.constant(3.0), kernel), (tf.constant(-7.0), step)])
        assert kernel.numpy() == pytest.approx(2.0 - 0.01, rel=1e-6)
        assert step.numpy() == pytest.approx(0.5 + 5 * 0.5 * 0.01, rel=1e-6)


def test_rows_of_memory_compare_with_the_lsq_of_the_same_round():
    memory = _module("memory")

    def run(peak, variables, slots, seconds):
        return {"peak": peak, "variables": variables, "slots": slots, "seconds": seconds}

    results = {
        "lsq2": [run(1e9, 2e6, 4e6, 0.1), run(2e9, 2e6, 4e6, 0.2)],
        "cpq2": [run(2e9, 3e6, 6e6, 0.2), run(3e9, 3e6, 6e6, 0.5)],
        "bsq8": [run(1e9, 1e6, 0.0, 0.1)],  # its LSQ was not run
    }
    assert memory.rows(results) == [
        ("lsq2", "1500", "1.00", "6.00", "1.00", "150.0", "1.00"),
        ("cpq2", "2500", "1.75", "9.00", "1.50", "350.0", "2.25"),
        ("bsq8", "1000", "", "1.00", "", "100.0", ""),
    ]


def test_bytes_of_variables_and_recipes_of_memory():
    memory = _module("memory")
    variables = [tf.Variable(tf.zeros([3, 5])), tf.Variable([1, 2], dtype=tf.int64)]
    assert memory.size(variables) == 60 + 16
    for name, variant in memory.VARIANTS.items():
        recipe = variant.recipe()
        assert name.endswith(str(recipe.weight_bits)) and recipe.penalties == ()
        assert memory.VARIANTS[variant.baseline].recipe().weight_bits == recipe.weight_bits
    assert memory.VARIANTS["mirror_softmax2"].recipe().options["mirror_descent"] == {
        "form": "softmax"
    }
