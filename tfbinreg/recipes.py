"""Recipes with names, to start from: `tfbinreg.recipes.paper(2)`."""

from __future__ import annotations

from tfbinreg.core.recipe import Recipe


def default() -> Recipe:
    """W4A8, for microcontrollers: 8-bit activations cost an int8 runtime nothing."""
    return Recipe()


def paper(bits: int) -> Recipe:
    """The papers' setting: weights and unsigned activations at `bits`, first and last layer at 8
    (Esser et al., ICLR 2020, section 3; Han et al., ICCV 2021, section 4).

    Signed activations, which the papers' ResNets do not have, stay at 8 bits.
    """
    return Recipe(weight_bits=bits, activation_bits=bits)


def best(bits: int, *, activation_bits: int | None = None) -> Recipe:
    """What trains best at 2 bits in our own study (docs/study.md): the papers' bits, a step for
    each output channel, and iterative freezing (Nagel et al., ICML 2022) with its defaults. With
    activations of 8 bits, the learned steps also move at a tenth of the optimizer's rate, which did
    not help with activations of 2 bits.

    It was chosen on rows that no reported result uses, for one depthwise net at W2A2 and W2A8 in
    10,500 steps. Other bits and lengths were not tried. Train with Adam from 0.003 with cosine
    decay to zero, and give `finalize` batches as in training, which matters more than the method.
    Freezing counts how often codes change: in fewer than a few thousand steps it acts only with
    `with_options("freezing", momentum=0.02)`.

    Args:
        bits: of the weights.
        activation_bits: of unsigned activations; None for those of the weights, 8 for
            microcontrollers.
    """
    activations = bits if activation_bits is None else activation_bits
    return Recipe(
        weight_bits=bits,
        activation_bits=activations,
        per_channel=True,
        updates=("freezing",),
        step_rate=0.1 if activations == 8 else 1.0,
    )


def hardware_friendly(bits: int) -> Recipe:
    """What fixed-point hardware needs (Han et al., ICCV 2021, section 3.8 and table 9): TQT, whose
    scales are powers of two; weights and unsigned activations at `bits`, also in the first and last
    layer; 8-bit biases; both inputs and the output of every addition on a grid; and normalizations
    folded into the kernels during training. That section of the paper is known from others' notes.

    Until `FreezeBatchNorm` freezes the statistics, training normalizes with those of the batch (see
    `FoldedKernel`). Model inputs, outputs and signed activations stay at 8 bits: int8 kernels clip
    an activation of fewer bits to the range of a ReLU, and no signed range has that form. A
    normalization without a kernel to fold into keeps its 32-bit bias. Generated C requantizes with
    shifts alone. `dataclasses.replace(recipe, method="lsq")` learns steps of any size.
    """
    return Recipe(
        weight_bits=bits,
        activation_bits=bits,
        first_last_bits=None,
        fold_batch_norm=True,
        bias_bits=8,
        method="tqt",
    )


def weights_only(bits: int) -> Recipe:
    """Weights at `bits`, all activations float: for studies of the weights. Cannot be converted."""
    return Recipe(weight_bits=bits, float_activations=True)
