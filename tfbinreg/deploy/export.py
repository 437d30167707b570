"""Trained model -> canonical int8 .tflite bytes that have been read back and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfbinreg.core.problems import raise_problems
from tfbinreg.core.warning import warn_unfinalized
from tfbinreg.deploy.finest_grids import finest_grid_problems
from tfbinreg.deploy.freeze import freeze
from tfbinreg.deploy.output_proof import prove_outputs
from tfbinreg.deploy.proof import prove
from tfbinreg.deploy.tflite_file import write
from tfbinreg.layers.sites import require_quantized
from tfbinreg.network.open_sizes import InputShape, fixed_shapes
from tflite_tools.schema.card import check_notes


def to_tflite(
    model: Any,
    *,
    input_type: str = "int8",
    output_type: str | None = None,
    input_shape: InputShape | None = None,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """Convert a trained quantized model to a TFLite file of integer operators.

    Weights are stored as int8 codes times the pre-scale (32, 16, 8 for 2, 3, 4 bits), biases as
    int32, b-bit activations in the top 2^b values of int8. The file carries a manifest (layers,
    bits, recipe, library versions, SHA-256 of the codes), a quantization card (`quantization_card`)
    and a signature with the names of the model's inputs and outputs.

    Converting a model that was not finalized issues a `QuantizationWarning`.

    Args:
        model: a trained model from `quantize_apply`.
        input_type: "int8", or "float32" for a file that quantizes its inputs itself.
        output_type: "int8", or "float32" for a file that dequantizes its outputs itself; None for
            the input type.
        input_shape: for a model with open input sizes, the sizes of a sample; for several inputs, a
            list of them or a dict by input name. The model itself stays open.
        notes: texts for the card that only you can provide, by name: "data", "labels" (real or
            none), "checkpoint" (which float model), "epochs", "training", "baseline" (the float
            model's accuracy), "accuracy".

    Returns:
        The file's bytes; inputs and outputs have batch size 1.

    Raises:
        ValueError: if the model has no exact integer form (the message lists every layer that
            prevents it), a type or a note's name is unknown, or an open size is not given.
        RuntimeError: if the file, read back, differs from what was frozen, or LiteRT computes
            something else with it.
    """
    output_type = input_type if output_type is None else output_type
    require_quantized(model)
    check_notes(notes or {})
    frozen = freeze(model, input_shape=fixed_shapes(model, input_shape))
    frozen = dataclasses.replace(frozen, notes=dict(notes or {}))
    raise_problems(finest_grid_problems(frozen), f"convert model {model.name!r}")
    if not model.finalized.numpy():
        warn_unfinalized("converted", stacklevel=3)
    data = write(frozen, input_type=input_type, output_type=output_type)
    prove(data, frozen)
    prove_outputs(data, frozen)
    return data
