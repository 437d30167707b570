"""The flash that the generated C of a quantized Keras model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflite_tools.reports import flash
from tflite_tools.schema import contents

if TYPE_CHECKING:
    from tfbinreg.network.open_sizes import InputShape


def c_bytes(model: Any, *, input_shape: InputShape | None = None) -> int:
    """Bytes of packed weights and constants in the C code of a quantized model in its current
    state.

    The kernels' code is not counted. Weights are counted at the bits that their layers may use; a
    network that cannot be converted to C is counted as in the file. The function can be called
    during training: `tfbinreg.FlashBudgetSchedule` accepts it as `count`.

    Args:
        model: a calibrated model from `tfbinreg.quantize_apply`; it is not changed.
        input_shape: as for `tfbinreg.to_tflite`.

    Raises:
        ValueError: if the model has no exact integer form; the message lists every layer that
            prevents it.
    """
    from tfbinreg.deploy.freeze import freeze
    from tfbinreg.deploy.tflite_file import write
    from tfbinreg.layers.sites import require_quantized
    from tfbinreg.network.open_sizes import fixed_shapes

    require_quantized(model)
    frozen = freeze(model, input_shape=fixed_shapes(model, input_shape))
    return flash.count(contents.load(write(frozen))).total
