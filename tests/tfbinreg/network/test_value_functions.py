"""Functions of one value: against independent formulas in float64, and their tables."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfbinreg.core.grid import Grid
from tfbinreg.network.added_layers import ValueFunction
from tfbinreg.network.value_functions import FUNCTIONS, VALUE, evaluate, table

POINTS = np.array([-7.3, -3.0, -1.25, -0.5, -1e-3, 0.0, 2e-3, 0.5, 0.7, 1.0, 2.5, 3.0, 6.2])


def sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x))


def softplus(x):
    return math.log(1.0 + math.exp(x))


TWINS = {
    "abs": abs,
    "celu": (lambda x, a: x if x > 0 else a * (math.exp(x / a) - 1.0), 0.7),
    "clip": (lambda x, low, high: min(max(x, low), high), -1.5, 2.0),
    "cos": math.cos,
    "elu": (lambda x, a: x if x > 0 else a * (math.exp(x) - 1.0), 0.7),
    "erf": math.erf,
    "exp": math.exp,
    "expm1": lambda x: math.exp(x) - 1.0,
    "floor": math.floor,
    "gelu": lambda x: 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0))),
    "gelu_tanh": lambda x: (
        0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "greater": (lambda x, y: float(x > y), 0.5),
    "greater_equal": (lambda x, y: float(x >= y), 0.5),
    "hard_shrink": (lambda x, a: x if abs(x) > a else 0.0, 0.5),
    "hard_sigmoid": lambda x: min(max(x + 3.0, 0.0), 6.0) / 6.0,
    "hard_swish": lambda x: x * min(max(x + 3.0, 0.0), 6.0) / 6.0,
    "hard_tanh": lambda x: min(max(x, -1.0), 1.0),
    "leaky_relu": (lambda x, a: max(x, a * x), 0.3),
    "less": (lambda x, y: float(x < y), 0.5),
    "less_equal": (lambda x, y: float(x <= y), 0.5),
    "log_sigmoid": lambda x: math.log(sigmoid(x)),
    "maximum": (max, 0.3),
    "minimum": (min, 0.3),
    "mish": lambda x: x * math.tanh(softplus(x)),
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "round": round,
    "selu": lambda x: (
        1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1.0))
    ),
    "sigmoid": sigmoid,
    "sign": lambda x: float(np.sign(x)),
    "silu": lambda x: x * sigmoid(x),
    "sin": math.sin,
    "soft_shrink": (lambda x, a: math.copysign(max(abs(x) - a, 0.0), x), 0.5),
    "softplus": softplus,
    "softsign": lambda x: x / (1.0 + abs(x)),
    "square": lambda x: x * x,
    "squareplus": (lambda x, b: (x + math.sqrt(x * x + b)) / 2.0, 3.0),
    "tanh": math.tanh,
    "tanh_shrink": lambda x: x - math.tanh(x),
    "threshold": (lambda x, a, b: x if x > a else b, 0.4, -2.0),
}
POSITIVE = {
    "log": math.log,
    "log1p": lambda x: math.log(1.0 + x),
    "power": (lambda x, y: x**y, 1.5),
    "reciprocal": lambda x: 1.0 / x,
    "rsqrt": lambda x: 1.0 / math.sqrt(x),
    "sqrt": math.sqrt,
}
OF_TWO = {"add", "subtract", "multiply", "divide", "negative", "identity", "where"}


def test_every_function_has_a_twin():
    assert set(FUNCTIONS) == {*TWINS, *POSITIVE, *OF_TWO}


@pytest.mark.parametrize("name", [*TWINS, *POSITIVE])
def test_functions_are_their_twins(name):
    twin = {**TWINS, **POSITIVE}[name]
    twin, *options = twin if isinstance(twin, tuple) else (twin,)
    points = POINTS[POINTS > 0] if name in POSITIVE else POINTS
    made = evaluate([name, VALUE, *options], tf.constant(points, tf.float64)).numpy()
    expected = [twin(float(x), *options) for x in points]
    np.testing.assert_allclose(made, expected, rtol=1e-12, atol=1e-12)


def test_functions_of_functions():
    expression = ["where", ["greater", VALUE, 1.0], ["negative", VALUE], ["add", VALUE, 2.0]]
    made = evaluate(expression, tf.constant([0.5, 1.0, 3.0]))
    assert made.numpy().tolist() == [2.5, 3.0, -3.0]


def test_a_table_holds_the_rounded_results():
    source, target = Grid(8, True, 0.05, -128, 127), Grid(8, True, 0.02, -20, 235)
    values = np.arange(-128, 128) * 0.05
    real = [x * math.tanh(softplus(x)) for x in values]
    expected = np.clip(np.rint(np.array(real) / np.float64(np.float32(0.02))) - 108, -128, 127)
    made = table(["mish", VALUE], source, target)
    assert made.dtype == np.int8
    np.testing.assert_array_equal(made, expected)


def test_infinity_saturates_and_what_is_no_number_is_refused():
    source, target = Grid(8, True, 0.5, -128, 127), Grid(8, True, 0.02, -128, 127)
    made = table(["divide", 1.0, VALUE], source, target)
    assert made[128] == 127 and made[0] == round(-1 / 64 / 0.02)
    with pytest.raises(ValueError, match="makes no number of -64, which its inputs can be"):
        table(["log", VALUE], source, target)


def test_the_layer_is_saved_with_its_expression(tmp_path):
    image = keras.Input((4,))
    model = keras.Model(image, ValueFunction('["multiply", "x", ["erf", "x"]]')(image))
    model.save(tmp_path / "m.keras")
    data = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(data), model(data))
    assert model.compute_output_shape((2, 4)) == (2, 4)
