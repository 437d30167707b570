"""Low-bit quantization-aware training for Keras that ends on a microcontroller.

    q_model = tfbinreg.quantize_apply(model, weight_bits=2, activation_bits=8)
    q_model.compile(...)
    q_model.fit(..., callbacks=[tfbinreg.BinRegularization("two_stage", switch_epoch=30)])
    print(tfbinreg.finalize(q_model, train))
    q_model.save("q.keras")

Then `tflite_tools convert q.keras --output model.tflite`.
"""

from tfbinreg import recipes
from tfbinreg.activation_quantizers import LSQActivationQuantizer, LSQPlusActivationQuantizer
from tfbinreg.batch_norm import BatchNormReestimation, FreezeBatchNorm, reestimate_batch_norm
from tfbinreg.budget import FlashBudget, fit_flash_budget
from tfbinreg.callbacks import BinRegularization
from tfbinreg.config import LSQQuantizeConfig
from tfbinreg.export import to_tflite
from tfbinreg.finalize import finalize
from tfbinreg.finalize_report import FinalizeReport
from tfbinreg.freeze import integer_codes
from tfbinreg.grid import CodedTensor, Grid
from tfbinreg.model import BinOptions, QuantizedModel
from tfbinreg.ops import lsq_quantize
from tfbinreg.plan import Plan
from tfbinreg.quantize import plan, quantize_apply
from tfbinreg.quantizers import LSQWeightQuantizer
from tfbinreg.reader import register_layer
from tfbinreg.recipe import Recipe, Rule
from tfbinreg.regularizers import bin_regularization
from tfbinreg.saving import load_model, quantize_scope
from tfbinreg.scheme import LSQQuantizeScheme
from tfbinreg.version import __version__
from tfbinreg.warning import QuantizationWarning

__all__ = [
    "BatchNormReestimation",
    "BinOptions",
    "BinRegularization",
    "CodedTensor",
    "FinalizeReport",
    "FlashBudget",
    "FreezeBatchNorm",
    "Grid",
    "LSQActivationQuantizer",
    "LSQPlusActivationQuantizer",
    "LSQQuantizeConfig",
    "LSQQuantizeScheme",
    "LSQWeightQuantizer",
    "Plan",
    "QuantizationWarning",
    "QuantizedModel",
    "Recipe",
    "Rule",
    "__version__",
    "bin_regularization",
    "finalize",
    "fit_flash_budget",
    "integer_codes",
    "load_model",
    "lsq_quantize",
    "plan",
    "quantize_apply",
    "quantize_scope",
    "recipes",
    "reestimate_batch_norm",
    "register_layer",
    "to_tflite",
]
