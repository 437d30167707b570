"""Does a converted file hold the trained codes, compute in integers and agree with the model?"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tflite_tools.checks import agreement, operator_checks, static
from tflite_tools.checks.agreement import Limits
from tflite_tools.checks.coarse_check import check_coarse
from tflite_tools.checks.verdict import Check, Report, Verdict, decide
from tflite_tools.running import runtime, samples
from tflite_tools.running.runtime import LITERT, TFLM, MissingOpError, Run, RuntimeFailedError
from tflite_tools.schema.contents import Model
from tflite_tools.system.progress import Advance, quietly

DEFAULT_LIMITS = Limits()
_RUNTIMES = {"litert": LITERT, "tflm": TFLM}
_ABSENT = MissingOpError("TFLM is not installed (pip install tflite-micro, or 'tfbinreg[micro]')")
_Outputs = list[np.ndarray] | RuntimeFailedError


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The trained model that a file was made from, as far as `verify` needs it.

    Attributes:
        codes: layer name -> int8 codes, Keras layout.
        predictions: output layer -> float outputs for the inputs of the verification.
        activations: layer name -> activations after it for the first inputs, float.
        target: the runtime whose integers the model follows, "tflm" or "litert"; None for the
            manifest's.
        exact: whether predictions and activations are that runtime's, bit for bit.
    """

    codes: Mapping[str, np.ndarray] | None = None
    predictions: Mapping[str, np.ndarray] | None = None
    activations: Mapping[str, np.ndarray] | None = None
    target: str | None = None
    exact: bool = False


NO_REFERENCE = Reference()


def verify(
    model: Model,
    *,
    reference: Reference = NO_REFERENCE,
    inputs: Mapping[str, np.ndarray] | None = None,
    typical: bool = False,
    samples_count: int = samples.DEFAULT_SAMPLES,
    seed: int = samples.DEFAULT_SEED,
    limits: Limits | None = None,
    time_limit: float = runtime.TIME_LIMIT,
    advance: Advance = quietly,
) -> Report:
    """Verify a file made by `tflite_tools convert`.

    Checks, in this order: the weights are the trained integer codes ("codes"), every operator
    computes in integers ("integer"), b-bit activations stay on their grids ("levels"), every
    operator by itself computes what the trained model computes ("layers"), the outputs agree with
    the trained model's ("agreement") and TFLM's with LiteRT's ("tflm").

    A finalized model (`tfbinreg.finalize`) computes the integers of its target, TFLM or LiteRT: in
    that runtime every operator and output has to be equal. If TFLM, or an operator in it, is
    missing, LiteRT takes its place, and the limits apply. The distance of the other runtime is
    reported. TFLM rounds twice where LiteRT rounds once, and the differences grow through a deep
    low-bit net. Beyond the limits they are therefore a warning if every operator by itself is
    correct, unless the caller gives `limits`.

    Args:
        model: the file.
        reference: the trained model. Without its codes, "codes" compares with the SHA-256 in the
            manifest; without predictions or activations, "agreement" or "layers" are skipped.
        inputs: name of an input -> float array, samples along the first axis, in the units of the
            trained model. None draws `samples_count` from the input grid (`samples.seeded`).
        typical: whether `inputs` are like those the device will get, so that numbers that are lost
            on a grid with far larger ones are reported.
        samples_count: number of samples to draw.
        seed: seed of the drawn samples.
        limits: what counts as agreement of outputs; None for `DEFAULT_LIMITS`, with the exception
            above for TFLM.
        time_limit: seconds for each run.
        advance: is called with what is being done.

    Returns:
        A report with one check of each name. It begins with a warning called "finalized" if the
        file's model was not finalized, and one called "coarse" if typical inputs show lost numbers.

    Raises:
        ValueError: if the file has no manifest, or inputs or reference do not fit.
    """
    model.require_manifest()
    if inputs is None:
        inputs = samples.seeded(model, samples=samples_count, seed=seed)
    stored = samples.stored(model, inputs)
    predictions = reference.predictions
    counts = {len(array) for array in (predictions or {}).values()}
    if not counts <= {len(stored[0])}:
        raise ValueError(f"The reference has other samples than the {len(stored[0])} inputs.")

    def run(name: str = LITERT, watched: Sequence[int] = ()) -> Run:
        return runtime.run(model, stored, runtime=name, watched=watched, time_limit=time_limit)

    def rounding_misfits() -> list[tuple[str, str]]:
        return operator_checks.rounding_misfits(model, seed=seed, time_limit=time_limit)

    advance(None, "running the file in LiteRT")
    outputs = {LITERT: _outputs(model, run)}
    if runtime.available(TFLM):
        advance(None, "running the file in TFLM")
        outputs[TFLM] = _outputs(model, lambda: run(TFLM))
    wanted = _RUNTIMES[reference.target or model.require_manifest().target]
    chosen = LITERT if isinstance(outputs.get(wanted, _ABSENT), MissingOpError) else wanted
    exact = reference.exact and chosen == wanted
    watched = list(agreement.watched_tensors(model))
    watched_run = functools.cache(lambda: run(watched=watched))
    advance(None, "running every operator alone")
    by_layer = guarded(
        "layers",
        lambda: operator_checks.check_layers(
            model,
            reference.activations,
            runtime_name=chosen,
            exact=exact,
            time_limit=time_limit,
        ),
    )
    advance(None, "comparing")
    demanded = agreement.EXACT if exact and _takes_int8(model) else DEFAULT_LIMITS
    subject = f"{chosen} against the reference"
    if chosen != wanted:
        subject += f" (which follows {wanted}: not run, {outputs.get(wanted, _ABSENT)})"
    compared = _agreement(model, outputs[chosen], predictions, subject, limits or demanded)
    if by_layer.verdict is Verdict.PASSED and not reference.exact:
        compared = _advised(compared)
    tflm = _tflm(model, outputs, limits or DEFAULT_LIMITS)
    if limits is None:
        tflm = _judged(tflm, rounding_misfits)
    return Report(
        (
            *_unfinalized(model),
            *(_coarse(model, inputs, watched_run) if typical else ()),
            static.check_codes(model, reference.codes),
            static.check_integer(model),
            guarded("levels", lambda: agreement.check_levels(model, watched_run())),
            by_layer,
            compared,
            tflm,
        )
    )


def _unfinalized(model: Model) -> tuple[Check, ...]:
    """A warning, if the file's model was not finalized."""
    if model.require_manifest().finalized is not False:
        return ()
    detail = (
        "the model was converted without tfbinreg.finalize: its batch normalization may lag behind "
        "the weights, which can cost many points at few bits"
    )
    return (Check("finalized", Verdict.WARNING, detail),)


def _coarse(
    model: Model, inputs: Mapping[str, np.ndarray], run: Callable[[], Run]
) -> tuple[Check, ...]:
    """A warning if numbers are lost on their grids; failed runs are reported elsewhere."""
    try:
        return check_coarse(model, inputs, run())
    except RuntimeFailedError:
        return ()


def _outputs(model: Model, run: Callable[[], Run]) -> _Outputs:
    try:
        return samples.real(model, run().outputs)
    except RuntimeFailedError as error:
        return error


def _takes_int8(model: Model) -> bool:
    """Whether the file's inputs are quantized outside, where no runtime rounds them its own way."""
    return all(model.main.tensors[index].dtype == "INT8" for index in model.main.inputs)


def _agreement(
    model: Model,
    outputs: _Outputs,
    predictions: Mapping[str, np.ndarray] | None,
    subject: str,
    limits: Limits,
) -> Check:
    if isinstance(outputs, RuntimeFailedError):
        return Check("agreement", Verdict.FAILED, str(outputs))
    if predictions is None:
        return Check("agreement", Verdict.SKIPPED, "no reference model was given")
    names = samples.output_names(model)
    by_name = samples.by_name(predictions, names, "The file's outputs")
    expected = [by_name[name] for name in names]
    return agreement.check_agreement(
        model, outputs, expected, name="agreement", subject=subject, limits=limits
    )


def _tflm(model: Model, outputs: Mapping[str, _Outputs], limits: Limits) -> Check:
    litert, tflm = outputs[LITERT], outputs.get(TFLM, _ABSENT)
    if isinstance(litert, RuntimeFailedError):
        return Check("tflm", Verdict.SKIPPED, "there are no outputs to compare with")
    if isinstance(tflm, RuntimeFailedError):
        skipped = isinstance(tflm, MissingOpError)
        return Check("tflm", Verdict.SKIPPED if skipped else Verdict.FAILED, str(tflm))
    return agreement.check_agreement(
        model, tflm, litert, name="tflm", subject="TFLM against LiteRT", limits=limits
    )


def _judged(check: Check, rounding_misfits: Callable[[], list[tuple[str, str]]]) -> Check:
    """A failed comparison of runtimes: a warning if all operators differ by rounding only."""
    if check.verdict is not Verdict.FAILED or not check.figures:
        return check
    try:
        problems = rounding_misfits()
    except (ValueError, RuntimeFailedError):
        return check
    if not problems:
        return _excused(check)
    return decide("tflm", problems, check.detail, check.figures)


def _advised(check: Check) -> Check:
    """Adds the most likely cause of a failed agreement of correct operators."""
    if check.verdict is not Verdict.FAILED or not check.figures:
        return check
    advice = "every operator alone is right: call tfbinreg.finalize(model) before saving it"
    return dataclasses.replace(check, detail=f"{check.detail} ({advice})")


def _excused(check: Check) -> Check:
    """A failed comparison of outputs as a warning."""
    if check.verdict is not Verdict.FAILED or not check.figures:
        return check
    detail = f"{check.detail} (rounding that grows through the net: every operator alone is right)"
    return dataclasses.replace(check, verdict=Verdict.WARNING, detail=detail)


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """A check's outcome. A runtime that cannot run the file fails it; one that lacks an operator
    skips it."""
    try:
        return check()
    except MissingOpError as error:
        return Check(name, Verdict.SKIPPED, str(error))
    except RuntimeFailedError as error:
        return Check(name, Verdict.FAILED, str(error))
