"""Generated C against the canonical file it was made from: weights, operators, outputs.

The C is compiled for this computer and run; its outputs have to be those of TFLM bit for bit.
LiteRT is no measure for it: TFLM and the C round a sum twice, LiteRT once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from tflite_tools.c import generate, host_run, source_folder, stream_run
from tflite_tools.c.host_run import CompilerError
from tflite_tools.c.source_folder import Folder
from tflite_tools.checks import derived_file, isolate, operator_checks
from tflite_tools.checks.agreement import Limits
from tflite_tools.checks.trained_model import guarded
from tflite_tools.checks.verdict import Check, Report, Verdict, decide, unproven
from tflite_tools.pruning import smaller
from tflite_tools.running import runtime, samples
from tflite_tools.running.runtime import LITERT, TFLM
from tflite_tools.schema.contents import Model
from tflite_tools.system.progress import Advance, quietly

SAMPLES = 4  # of the comparison before a folder is written
_DECIDING = ("operators", "tflm")  # without these nothing is known of what the C computes
_Outputs = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Case:
    folder: Folder
    canonical: Model
    inputs: _Outputs
    seed: int
    time_limit: float

    def c(self, flags: Sequence[str] = ()) -> _Outputs | CompilerError:
        """What the folder's program computes, watched by the sanitizers, or why it does not."""
        try:
            return stream_run.run(
                self.folder.files,
                self.canonical,
                self.inputs,
                flags=(*flags, *host_run.sanitizers()),
                time_limit=self.time_limit,
            )
        except CompilerError as error:
            return error

    def file(self, name: str) -> _Outputs:
        """What a runtime computes with the canonical file."""
        run = runtime.run(self.canonical, self.inputs, runtime=name, time_limit=self.time_limit)
        return run.outputs


def compare(folder: Folder, canonical: Model, *, samples_count: int = SAMPLES) -> Report:
    """The comparison before C is written: "codes" and "tflm" of `verify_folder`."""
    case = _case(folder, canonical, None, samples_count, samples.DEFAULT_SEED, runtime.TIME_LIMIT)
    codes, made = source_folder.check_codes(folder.source, case.canonical), case.c()
    return Report((codes, guarded("tflm", lambda: _tflm(case, made))))


def verify_folder(
    folder: Folder,
    canonical: Model,
    *,
    inputs: Sequence[np.ndarray] | None = None,
    samples_count: int = derived_file.VERIFY_SAMPLES,
    seed: int = samples.DEFAULT_SEED,
    limits: Limits | None = None,
    time_limit: float = runtime.TIME_LIMIT,
    advance: Advance = quietly,
) -> Report:
    """Compare a folder of C with the canonical file it was made from. Its program is run.

    Checks: every packed weight is the file's ("codes"), the files are what this version writes
    ("sources", else a warning), every operator alone computes what TFLM computes, with the C's own
    kernels on both of their paths ("operators", skipped for kernels of a version that calls them in
    another way), the outputs are TFLM's bit for bit ("tflm") and how far they are from LiteRT's
    ("litert"). Without a compiler or TFLM the last three are skipped; that nothing is proven then
    fails ("proof").

    Args:
        folder: the C.
        canonical: the int8 file it was made from.
        inputs: stored values, one array per input of the file. None draws `samples_count`.
        samples_count: how many samples to draw.
        seed: of the drawn samples and activations.
        limits: what the C may differ by from LiteRT; None for a warning beyond the default limits.
        time_limit: seconds for each run.
        advance: is told what is being done.

    Raises:
        ValueError: if the file has no manifest, or inputs do not fit.
    """
    case = _case(folder, canonical, inputs, samples_count, seed, time_limit)
    advance(None, "compiling and running the C")
    made = case.c()
    checks = [source_folder.check_codes(folder.source, case.canonical), _sources(case)]
    for name, doing, check in (
        ("operators", "running every operator alone", lambda: _operators(case)),
        ("tflm", "running the file in TFLM", lambda: _tflm(case, made)),
        ("litert", "running the file in LiteRT", lambda: _litert(case, made, limits)),
    ):
        advance(None, doing)
        checks.append(guarded(name, check))
    deciding = [check for check in checks if check.name in _DECIDING]
    return Report((*checks, *unproven(deciding, "C")))


def _case(
    folder: Folder,
    canonical: Model,
    inputs: Sequence[np.ndarray] | None,
    samples_count: int,
    seed: int,
    time_limit: float,
) -> _Case:
    canonical.require_manifest()
    if inputs is None:
        inputs = samples.stored(
            canonical, samples.seeded(canonical, samples=samples_count, seed=seed)
        )
    runtime.check_inputs(canonical, inputs)
    return _Case(folder, canonical, tuple(inputs), seed, time_limit)


def _sources(case: _Case) -> Check:
    """The files, character by character, are those that are written today."""
    try:
        written = generate.generate(
            case.canonical,
            name=case.folder.name,
            ram_budget=case.folder.ram_budget,
            streaming=case.folder.streaming,
        ).files
    except ValueError as error:
        return Check("sources", Verdict.FAILED, " ".join(str(error).split()))
    other = [name for name, text in written.items() if case.folder.files[name] != text]
    if other:
        told = f"{', '.join(other)}: not what this version writes (edited, or of another version)"
        return Check("sources", Verdict.WARNING, told)
    told = f"the {len(written)} files are what this version writes from the canonical file"
    return Check("sources", Verdict.PASSED, told)


def _operators(case: _Case) -> Check:
    """Every operator alone, on random activations, with the folder's kernels."""
    if missing := _missing():
        return Check("operators", Verdict.SKIPPED, missing)
    header = case.folder.files[generate.RUNTIME_HEADER]
    if _calls(header) != _calls(generate.runtime_header()):
        told = "kernels of another version, which are called in another way"
        return Check("operators", Verdict.SKIPPED, told)
    needed = smaller.of_model(case.canonical).model
    alone = isolate.isolate(needed)
    inputs = isolate.inputs_for(alone, operator_checks.random_activations(needed, case.seed))
    files = {**generate.generate(alone.model).files, generate.RUNTIME_HEADER: header}
    part = _Case(Folder("model", files), alone.model, inputs, 0, case.time_limit)
    expected = part.file(TFLM)
    problems: dict[tuple[str, str], None] = {}
    for flags in ((), (host_run.EMULATE_DSP,)):
        made = part.c(flags)
        if isinstance(made, CompilerError):
            return _broken("operators", made)
        problems |= dict.fromkeys(derived_file.unequal(alone.outputs, made, expected))
    count = sum(values.size for values in expected)
    detail = (
        f"{len(expected)} operators, each alone on {operator_checks.SAMPLES} random inputs, are "
        f"TFLM's in all {count} results, in plain C and in the form for DSP instructions"
    )
    return decide("operators", list(problems), detail, {"results": count})


def _calls(header: str) -> str:
    """How the kernels in a runtime header are called; "" in those of the first version."""
    found = re.search(r"^#define TFB_CALLS (\d+)", header, re.MULTILINE)
    return found[1] if found else ""


def _tflm(case: _Case, made: _Outputs | CompilerError) -> Check:
    """The whole network, bit for bit."""
    if missing := _missing():
        return Check("tflm", Verdict.SKIPPED, missing)
    if isinstance(made, CompilerError):
        return _broken("tflm", made)
    problems = derived_file.unequal(_output_names(case.canonical), made, case.file(TFLM))
    found = host_run.sanitizers()
    watched = "no fault found by the sanitizers" if found else "the compiler has no sanitizers"
    count = len(case.inputs[0])
    pushed = ", frame by frame" if case.folder.streaming else ""
    detail = f"outputs are bit for bit TFLM's on {count} inputs{pushed}; {watched}"
    return decide("tflm", problems, detail, {"samples": count})


def _litert(case: _Case, made: _Outputs | CompilerError, limits: Limits | None) -> Check:
    """How far the other runtime is: another rounding, not an error."""
    if host_run.compiler() is None:
        return Check("litert", Verdict.SKIPPED, host_run.MISSING)
    if isinstance(made, CompilerError):
        return Check("litert", Verdict.SKIPPED, "there are no outputs to compare with")
    worst = derived_file.worst(case.canonical.main, made, case.file(LITERT))
    told = f"against LiteRT: {worst.text()} (TFLM and the C round sums twice, LiteRT once)"
    header = case.canonical.require_manifest()
    if header.finalized and header.target == "litert":
        told += "; the model follows LiteRT: tfbinreg.finalize(model, target='tflm') follows the C"
    figures = worst.figures() | {"samples": len(case.inputs[0])}
    if worst.within(limits or Limits()):
        return Check("litert", Verdict.PASSED, told, figures=figures)
    verdict = Verdict.WARNING if limits is None else Verdict.FAILED
    return Check("litert", verdict, told, figures=figures)


def _broken(name: str, error: CompilerError) -> Check:
    return Check(name, Verdict.FAILED, " ".join(str(error).split()))


def _missing() -> str:
    """What is needed to compare with TFLM and is not installed; "" if nothing is."""
    reasons = []
    if host_run.compiler() is None:
        reasons.append(host_run.MISSING)
    if not runtime.available(TFLM):
        reasons.append(derived_file.NO_TFLM)
    return "; ".join(reasons)


def _output_names(model: Model) -> list[str]:
    return [model.main.tensors[index].name for index in model.main.outputs]
