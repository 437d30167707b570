"""What models that version 0.1.0 finalized compute: LiteRT's integers, some operations as in Keras.

They keep predicting what they did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from tfbinreg.core.grid import Grid
from tfbinreg.deploy import litert_arithmetic
from tfbinreg.deploy.frozen import FrozenOp
from tfbinreg.deploy.integer_ops import Arithmetic, Rule, Step, grid_of
from tfbinreg.deploy.tf_ops import PLAIN_OPS


def _limit_code(limit: float, grid: Grid, *, fused: bool) -> int:
    return round(limit / float(grid.scale))


def _float(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """In float32."""
    scale = grid_of(op).scale

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        values = [codes * source.scale for codes, source in zip(inputs, sources, strict=True)]
        return PLAIN_OPS[op.kind](op, values) / scale

    return step


def _rounded(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """In float32, rounded half up to the grid."""
    step = _float(op, sources)
    return lambda inputs: tf.floor(step(inputs) + 0.5)


RULES: Mapping[str, Rule] = {
    **litert_arithmetic.RULES,
    **dict.fromkeys(("Activation", "PReLU", "Softmax", "Subtract"), _rounded),
    "Add": litert_arithmetic.addition,
    "Conv2DTranspose": litert_arithmetic.kernel,
    "LeakyReLU": litert_arithmetic.leaky_relu,
}
ARITHMETIC = Arithmetic(
    rules=RULES, limit=_limit_code, unrounded=dict.fromkeys(("Activation", "Softmax"), _float)
)
