"""What the generated C of a quantized Keras model takes of flash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflite_tools.reports import flash
from tflite_tools.schema import contents

if TYPE_CHECKING:
    from tfbinreg.network.open_sizes import InputShape


def c_bytes(model: Any, *, input_shape: InputShape | None = None) -> int:
    """Bytes of packed weights and of constants in the C of a quantized model as it is now.

    The kernels' code is not counted. Weights are counted at the bits that their layers may use,
    and a network that cannot be C as it is in the file. It may be called in the middle of a
    training: `tfbinreg.FlashBudgetSchedule` takes it as `count`.

    Args:
        model: a calibrated one from `tfbinreg.quantize_apply`; it stays as it is.
        input_shape: as for `tfbinreg.to_tflite`.

    Raises:
        ValueError: if the model has no exact integer form, listing every layer that stands in the
            way.
    """
    from tfbinreg.deploy.freeze import freeze
    from tfbinreg.deploy.tflite_file import write
    from tfbinreg.layers.sites import require_quantized
    from tfbinreg.network.open_sizes import fixed_shapes

    require_quantized(model)
    frozen = freeze(model, input_shape=fixed_shapes(model, input_shape))
    return flash.count(contents.load(write(frozen))).total
