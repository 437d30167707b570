import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg import Recipe, recipes
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.layers.sites import activation_sites, kernel_sites, sites


def bits(sites):
    return {site.quantizer.bits for site in sites}


def test_the_default_is_the_recipe_without_arguments():
    assert recipes.default() == Recipe() == Recipe(weight_bits=4, activation_bits=8)


def test_paper(float_net):
    model = tfbinreg.quantize_apply(float_net, recipes.paper(3))
    assert bits(kernel_sites(model)) == {3, 8}
    unsigned = [site for site in activation_sites(model) if not site.quantizer.signed]
    assert 3 in bits(unsigned)


@pytest.mark.parametrize("activation_bits, rate", [(None, 1.0), (8, 0.1)])
def test_best_is_for_channels_with_freezing(float_net, images, labels, activation_bits, rate):
    recipe = recipes.best(2, activation_bits=activation_bits)
    assert recipe.step_rate == rate
    model = tfbinreg.quantize_apply(float_net, recipe, calibration_data=images)
    assert bits(kernel_sites(model)) == {2, 8}
    assert min(bits(activation_sites(model))) == (activation_bits or 2)
    assert all(site.quantizer.axis is not None for site in kernel_sites(model))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    model.fit(images, labels, verbose=0)
    tfbinreg.finalize(model, (images, labels))
    assert tfbinreg.to_tflite(model)


def test_weights_only_trains_and_says_that_it_cannot_be_converted(float_net, images, labels):
    model = tfbinreg.quantize_apply(float_net, recipes.weights_only(2))
    assert activation_sites(model) == []
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    model.fit(images, labels, verbose=0)
    with pytest.raises(ValueError, match="not on a grid; quantize the whole model"):
        tfbinreg.to_tflite(model)


def test_hardware_friendly(float_net):
    model = tfbinreg.quantize_apply(float_net, recipes.hardware_friendly(3))
    assert bits(kernel_sites(model)) == {3}  # the first and the last as well
    assert all(isinstance(site.layer, FoldedKernel) for site in kernel_sites(model))
    assert {site.layer.bias_bits for site in kernel_sites(model)} == {8}
    for site in sites(model):
        exponent = np.log2(float(site.quantizer.grid_now(site.variables).scale))
        assert exponent == round(exponent)
    plan = tfbinreg.plan(float_net, recipes.hardware_friendly(3))
    (add,) = (node for node in plan.graph.nodes if node.kind == "Add")
    consumer = plan.graph.sole_consumer(add.index)
    assert {*add.inputs, consumer.index} <= {*plan.grids, *plan.same_grid}


@pytest.mark.parametrize(
    "make", [recipes.paper, recipes.best, recipes.weights_only, recipes.hardware_friendly]
)
def test_wrong_bits(make):
    with pytest.raises(ValueError, match="weight_bits must be an integer from 1 to 8"):
        make(9)
