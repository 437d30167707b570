import ai_edge_litert.interpreter as litert
import numpy as np
import pytest
import tensorflow as tf

from tfbinreg.network.hard_swish import hard_swish, hard_swish_table

STORED = np.arange(-128, 128)


def file_table(scale, zero_point, out_scale, out_zero_point):
    """HARD_SWISH of every int8 value, by LiteRT."""

    def fake_quant(x, s, z):
        return tf.quantization.fake_quant_with_min_max_args(x, (-128 - z) * s, (127 - z) * s)

    @tf.function(input_signature=[tf.TensorSpec([1, 256])])
    def run(x):
        y = hard_swish(fake_quant(x, scale, zero_point))
        return fake_quant(y, out_scale, out_zero_point)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    interpreter = litert.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(given["index"], STORED.astype(np.int8)[None])
    interpreter.invoke()
    return interpreter.get_tensor(made["index"])[0], given["quantization"], made["quantization"]


@pytest.mark.parametrize("seed", range(6))
def test_the_table_is_the_runtimes_function(seed):
    random = np.random.default_rng(seed)
    scale, zero_point = float(random.uniform(0.004, 0.12)), int(random.integers(-60, 60))
    out_scale = ((127 - zero_point) * scale + 0.375) / 255 * random.uniform(0.6, 1.4)
    expected, given, made = file_table(
        scale, zero_point, out_scale, int(-128 + round(0.375 / out_scale))
    )
    arguments = [
        tf.constant(value, dtype)
        for value, dtype in zip((*given, *made), [tf.float32, tf.int32] * 2, strict=True)
    ]
    ours = tf.function(hard_swish_table)(*arguments)
    np.testing.assert_array_equal(ours, expected)
    real = hard_swish(tf.constant((STORED - given[1]) * given[0], tf.float32)).numpy()
    near = np.clip(real / made[0] + made[1], -128, 127)
    assert np.max(np.abs(ours - near)) < 1.1


def test_powers_of_two_have_exact_factors():
    table = hard_swish_table(*map(tf.constant, (3.0 / 256, 0, 1.0 / 64, -100)))
    real = hard_swish(tf.constant(STORED * 3.0 / 256, tf.float32)).numpy() * 64 - 100
    assert np.max(np.abs(table - np.clip(real, -128, 127))) < 1.1


def test_hard_swish_is_its_formula():
    values = tf.constant([-4.0, -3.0, -1.5, 0.0, 1.5, 3.0, 7.0])
    expected = np.float32([0, 0, -0.375, 0, 1.125, 3, 7])
    np.testing.assert_allclose(hard_swish(values), expected, rtol=1e-6)
