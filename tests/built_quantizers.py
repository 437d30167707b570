"""Quantizers with variables of their own, and something to quantize."""

import numpy as np
import tensorflow as tf
import tf_keras as keras


def built(quantizer, shape=(None, 4)):
    return quantizer, quantizer.build(shape, "tensor", keras.layers.Layer())


def step(variables):
    return variables["step"].numpy()


def batch(seed, shape=(6, 4)):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)
