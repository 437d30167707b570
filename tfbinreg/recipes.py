"""Recipes with names, to start from: `tfbinreg.recipes.paper(2)`."""

from __future__ import annotations

from tfbinreg.recipe import Recipe


def default() -> Recipe:
    """W4A8, for microcontrollers: activations of 8 bits cost an int8 runtime nothing."""
    return Recipe()


def paper(bits: int) -> Recipe:
    """The papers' setting: weights and unsigned activations at `bits`, first and last layer at 8
    (Esser et al., ICLR 2020, section 3; Han et al., ICCV 2021, section 4).

    Signed activations, which the papers' ResNets do not have, stay at 8 bits.
    """
    return Recipe(weight_bits=bits, activation_bits=bits)


def weights_only(bits: int) -> Recipe:
    """Weights at `bits`, all activations float: for studies of the weights. Cannot be converted."""
    return Recipe(weight_bits=bits, float_activations=True)
