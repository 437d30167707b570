"""What to take in place of layer classes that have no integer form, by their library and name."""

from __future__ import annotations

import dataclasses

_KERAS = ("keras", "tf_keras")
ANY_LAYER = (
    'replace it by supported layers (README, "What is supported"), or say how with '
    "tfbinreg.register_layer"
)


@dataclasses.dataclass(frozen=True)
class Remedy:
    """What helps with some layer classes.

    Attributes:
        classes: their names.
        text: what to do.
        libraries: whose they are.
    """

    classes: tuple[str, ...]
    text: str
    libraries: tuple[str, ...] = _KERAS


REMEDIES = (
    Remedy(
        ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "LSTMCell", "GRUCell"),
        "take Conv1D layers with padding='causal' and dilation_rate (a temporal convolutional "
        "network), or keep the recurrent layers in a float model of their own",
    ),
    Remedy(
        ("LayerNormalization", "GroupNormalization", "UnitNormalization", "RMSNormalization"),
        "take BatchNormalization, which is folded into a kernel, and train the float model again, "
        "or say how with tfbinreg.register_layer",
    ),
    Remedy(
        (
            *("MultiHeadAttention", "GroupQueryAttention", "Attention", "AdditiveAttention"),
            *("Dot", "EinsumDense"),
        ),
        "its products of two tensors have no exact form: take convolutions, pooling, and gates "
        "(squeeze and excitation by Multiply)",
    ),
    Remedy(
        ("Embedding", "Hashing", "StringLookup", "IntegerLookup", "TextVectorization"),
        "look vectors up outside the model, and start it with an input of vectors",
    ),
    Remedy(
        (
            *("Conv3D", "Conv3DTranspose", "MaxPooling3D", "AveragePooling3D"),
            *("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
        ),
        "take Conv2D over frames that are put together as channels",
    ),
    Remedy(
        ("ReparameterizableConv2D",),
        "fuse its branches first: kimm.utils.get_reparameterized_model(model)",
        ("kimm",),
    ),
)
_BY_CLASS = {
    (library, name): remedy.text
    for remedy in REMEDIES
    for library in remedy.libraries
    for name in remedy.classes
}


def remedy_of(library: str, kind: str) -> str:
    """What to do about a layer class of a library that is not supported."""
    return _BY_CLASS.get((library, kind), ANY_LAYER)
