"""A method of your own: weights between -1 and 1 by a tanh, and a penalty that rewards zeros.

    python examples/own_method.py

A quantizer is a class with the methods of `UniformWeightQuantizer`; `LSQWeightQuantizer` provides
all of them except the changed formula. Once registered, both parts work by name in recipes, saving
and files.
"""

import dataclasses

import tensorflow as tf
import tf_keras as keras

import tfbinreg


@keras.utils.register_keras_serializable(package="own_method")
class TanhQuantizer(tfbinreg.LSQWeightQuantizer):
    """LSQ of tanh(w): no weight runs away, and the largest move least."""

    def __call__(self, inputs, training, weights, **kwargs):
        return super().__call__(tf.tanh(inputs), training, weights, **kwargs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """power: of the absolute weights that the penalty sums."""

    power: float = 1.0


def sparsity(view: tfbinreg.KernelView, options: Options) -> tf.Tensor:
    """The mean of |w / scale|^power: weights near zero, whose code is 0, cost least."""
    scale = tf.reduce_mean(tf.stop_gradient(view.grid.scale))
    return tf.reduce_mean(tf.abs(view.latent / scale + 1e-6) ** options.power)


METHOD = tfbinreg.Method(
    name="tanh",
    options=Options,
    weights=lambda spec, options: TanhQuantizer(spec.bits, spec.axis, spec.start),
    activations=lambda spec, options: tfbinreg.LSQActivationQuantizer(
        spec.bits, spec.signed, spec.upper_limit, spec.from_range, spec.fixed
    ),
    penalty=sparsity,
)
tfbinreg.register_method(METHOD)

if __name__ == "__main__":
    net = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4)])
    recipe = tfbinreg.Recipe(method="tanh", penalties=("tanh",), options={"tanh": {"power": 0.5}})
    print(tfbinreg.quantize_apply(net, recipe).recipe)
