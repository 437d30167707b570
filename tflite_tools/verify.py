"""Does a converted file hold the trained codes, compute in integers and agree with the model?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tflite_tools import agreement, checks, runtime, samples
from tflite_tools import model as models
from tflite_tools.agreement import Limits
from tflite_tools.model import Model
from tflite_tools.runtime import LITERT, TFLM, MissingOpError, Run, RuntimeFailedError
from tflite_tools.verdict import Check, Report, Verdict

DEFAULT_LIMITS = Limits()


def verify(
    data: bytes,
    *,
    reference: Sequence[np.ndarray] | None = None,
    reference_codes: Mapping[str, np.ndarray] | None = None,
    inputs: Sequence[np.ndarray] | None = None,
    samples_count: int = samples.DEFAULT_SAMPLES,
    seed: int = samples.DEFAULT_SEED,
    limits: Limits = DEFAULT_LIMITS,
    time_limit: float = runtime.TIME_LIMIT,
) -> Report:
    """Verify a file made by `tflite_tools convert`.

    Checks, in this order: the weights are the trained integer codes ("codes"), every operator
    computes in integers ("integer"), b-bit activations stay on their grids ("levels"), LiteRT
    agrees with the trained model ("agreement") and TFLM with LiteRT ("tflm").

    Args:
        data: the file.
        reference: the trained model's outputs for `inputs`, one float array per output. None
            skips "agreement".
        reference_codes: layer name -> int8 codes of the trained model. None compares with the
            SHA-256 in the manifest.
        inputs: one float array per input, samples along the first axis, in the units the trained
            model takes. None draws `samples_count` from the input grid (`default_inputs`).
        samples_count: how many samples to draw.
        seed: of the drawn samples.
        limits: what counts as agreement of outputs.
        time_limit: seconds for each run.

    Returns:
        A report with one check of each name.

    Raises:
        ValueError: if the file is damaged or has no manifest, or inputs or reference do not fit.
    """
    model = models.load(data)
    model.require_manifest()
    if inputs is None:
        inputs = samples.seeded(model, samples=samples_count, seed=seed)
    stored = samples.stored(model, inputs)
    if reference is not None and any(len(array) != len(stored[0]) for array in reference):
        raise ValueError(f"The reference has other samples than the {len(stored[0])} inputs.")

    def run(name: str = LITERT, watched: Sequence[int] = ()) -> Run:
        return runtime.run(
            data, model, stored, runtime=name, watched=watched, time_limit=time_limit
        )

    watched = list(agreement.watched_tensors(model))
    return Report(
        (
            checks.check_codes(data, model, reference_codes),
            checks.check_integer(model),
            _guarded("levels", lambda: agreement.check_levels(model, run(watched=watched))),
            *_agreement(model, run, reference, limits),
        )
    )


def default_inputs(
    data: bytes,
    *,
    samples_count: int = samples.DEFAULT_SAMPLES,
    seed: int = samples.DEFAULT_SEED,
) -> tuple[np.ndarray, ...]:
    """The inputs that `verify` draws, for the trained model to predict on.

    Raises:
        ValueError: if the file is damaged, or an input has no grid.
    """
    return samples.seeded(models.load(data), samples=samples_count, seed=seed)


def _agreement(
    model: Model,
    run: Callable[..., Run],
    reference: Sequence[np.ndarray] | None,
    limits: Limits,
) -> tuple[Check, Check]:
    try:
        outputs = _real(model, run())
    except RuntimeFailedError as error:
        failed = Check("agreement", Verdict.FAILED, str(error))
        return failed, Check("tflm", Verdict.SKIPPED, "there are no outputs to compare with")
    if reference is None:
        first = Check("agreement", Verdict.SKIPPED, "no reference model was given")
    else:
        first = agreement.check_agreement(
            model,
            outputs,
            reference,
            name="agreement",
            subject="LiteRT against the reference",
            limits=limits,
        )
    if not runtime.available(TFLM):
        missing = "TFLM is not installed (pip install 'tfbinreg[micro]')"
        return first, Check("tflm", Verdict.SKIPPED, missing)
    return first, _guarded(
        "tflm",
        lambda: agreement.check_agreement(
            model,
            _real(model, run(TFLM)),
            outputs,
            name="tflm",
            subject="TFLM against LiteRT",
            limits=limits,
        ),
    )


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """A check's outcome; a runtime that cannot run the file fails it."""
    try:
        return check()
    except MissingOpError as error:
        return Check(name, Verdict.SKIPPED, str(error))
    except RuntimeFailedError as error:
        return Check(name, Verdict.FAILED, str(error))


def _real(model: Model, run: Run) -> list[np.ndarray]:
    """Outputs as real numbers."""
    tensors = [model.main.tensors[index] for index in model.main.outputs]
    return [
        array
        if tensor.quantization is None or array.dtype == np.float32
        else runtime.dequantize(array, tensor.quantization)
        for tensor, array in zip(tensors, run.outputs, strict=True)
    ]
