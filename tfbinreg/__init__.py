"""Low-bit quantization-aware training for Keras that ends on a microcontroller.

    q_model = tfbinreg.quantize_apply(model, weight_bits=2, activation_bits=8)
    q_model.compile(...)
    q_model.fit(..., callbacks=[tfbinreg.BinRegularization("two_stage", switch_epoch=30)])
    print(tfbinreg.finalize(q_model, train))
    q_model.save("q.keras")

Then `tflite_tools convert q.keras --output model.tflite`.
"""

from tfbinreg import _compat  # noqa: F401, I001  # first: it says what is missing
from tfbinreg import plot, recipes
from tfbinreg.budget.budget_schedule import FlashBudgetSchedule
from tfbinreg.budget.choices import FlashBudget
from tfbinreg.budget.flash_budget import fit_flash_budget
from tfbinreg.budget.found_recipe import found_recipe
from tfbinreg.core.grid import CodedTensor, Grid
from tfbinreg.core.problems import RefusedError
from tfbinreg.core.recipe import Recipe, Rule
from tfbinreg.core.warning import QuantizationWarning
from tfbinreg.deploy.export import to_tflite
from tfbinreg.deploy.freeze import integer_codes
from tfbinreg.frontend.read import register_layer
from tfbinreg.layers.config import LSQQuantizeConfig
from tfbinreg.methods.bin_regularization import BinOptions, bin_regularization
from tfbinreg.methods.contract import (
    GridSpec,
    GridTensors,
    KernelSpec,
    KernelStep,
    KernelView,
    Method,
)
from tfbinreg.methods.lsq_functions import lsq_quantize
from tfbinreg.methods.lsq_plus import LSQPlusActivationQuantizer
from tfbinreg.methods.lsq_quantizers import LSQActivationQuantizer, LSQWeightQuantizer
from tfbinreg.methods.roster import register_method
from tfbinreg.methods.solver_view import Solved, SolverView
from tfbinreg.planning.plan import Plan
from tfbinreg.training.batch_norm import (
    BatchNormReestimation,
    FreezeBatchNorm,
    reestimate_batch_norm,
)
from tfbinreg.training.distillation import distill
from tfbinreg.training.finalize import finalize
from tfbinreg.training.finalize_report import FinalizeReport
from tfbinreg.training.model import QuantizedModel
from tfbinreg.training.penalty_schedule import BinRegularization, PenaltySchedule
from tfbinreg.training.quantization_board import QuantizationBoard
from tfbinreg.training.quantize import plan, quantize_apply
from tfbinreg.training.quantizer_log import QuantizerLog
from tfbinreg.training.requantize import requantize
from tfbinreg.training.saving import load_model, quantize_scope
from tfbinreg.training.solve import SolveReport, solve
from tfbinreg.training.strip import strip_quantization
from tfbinreg.training.tfmot_scheme import LSQQuantizeScheme
from tfbinreg.training.train_blocks import BlockLoss, train_blocks
from tfbinreg.training.transition_log import TransitionLog
from tfbinreg.training.weight_averages import EvaluateAverages
from tfbinreg.version import __version__

__all__ = [
    "BatchNormReestimation",
    "BinOptions",
    "BinRegularization",
    "BlockLoss",
    "CodedTensor",
    "EvaluateAverages",
    "FinalizeReport",
    "FlashBudget",
    "FlashBudgetSchedule",
    "FreezeBatchNorm",
    "Grid",
    "GridSpec",
    "GridTensors",
    "KernelSpec",
    "KernelStep",
    "KernelView",
    "LSQActivationQuantizer",
    "LSQPlusActivationQuantizer",
    "LSQQuantizeConfig",
    "LSQQuantizeScheme",
    "LSQWeightQuantizer",
    "Method",
    "PenaltySchedule",
    "Plan",
    "QuantizationBoard",
    "QuantizationWarning",
    "QuantizedModel",
    "QuantizerLog",
    "Recipe",
    "RefusedError",
    "Rule",
    "SolveReport",
    "Solved",
    "SolverView",
    "TransitionLog",
    "__version__",
    "bin_regularization",
    "distill",
    "finalize",
    "fit_flash_budget",
    "found_recipe",
    "integer_codes",
    "load_model",
    "lsq_quantize",
    "plan",
    "plot",
    "quantize_apply",
    "quantize_scope",
    "recipes",
    "reestimate_batch_norm",
    "register_layer",
    "register_method",
    "requantize",
    "solve",
    "strip_quantization",
    "to_tflite",
    "train_blocks",
]
