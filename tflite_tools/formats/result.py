"""What a format returns, and the comparison that comes first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tflite_tools.checks import derived_file
from tflite_tools.checks.verdict import Report, Verdict
from tflite_tools.running.runtime import LITERT, TFLM
from tflite_tools.schema.contents import Model

TARGETS = ("any", "litert", "tflm", "ethos-u")
RUNTIMES = {"any": (LITERT, TFLM), "litert": (LITERT,), "tflm": (TFLM,)}


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A file in another format.

    Attributes:
        model: the file.
        report: the comparison with the file it was made from; it has passed.
        warnings: one line each, naming the layer.
        figures: sizes and costs in bytes, by name.
    """

    model: Model
    report: Report
    warnings: tuple[str, ...]
    figures: dict[str, int]


def checked(
    made: Model,
    source: Model,
    *,
    runtimes: Sequence[str],
    samples_count: int = derived_file.SAMPLES,
    warnings: Sequence[str] = (),
    figures: dict[str, int] | None = None,
) -> Result:
    """The result, once it has been found to be the same network as `source`.

    Raises:
        ValueError: naming tensors and reasons, if it is not.
    """
    report = derived_file.verify_variant(
        made, source, samples_count=samples_count, runtimes=runtimes
    )
    return Result(made, report, (*warnings, *accepted(report)), figures or {})


def accepted(report: Report) -> tuple[str, ...]:
    """The comparison of what was made with the canonical file: warnings, one line each.

    Raises:
        ValueError: with names and reasons, if a check has failed.
    """
    failed = [check for check in report.checks if check.verdict is Verdict.FAILED]
    if failed:
        text = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        raise ValueError(f"The file made is not the canonical network and is not written: {text}")
    told = {Verdict.SKIPPED: "not compared", Verdict.WARNING: "differs"}
    return tuple(
        f"{told[check.verdict]} in {check.name}: {check.detail}"
        for check in report.checks
        if check.verdict in told
    )
