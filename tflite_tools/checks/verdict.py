"""The results of verifying a file: one `Check` per property, together a `Report`."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence


class Verdict(str, enum.Enum):
    """Outcome of a check; WARNING and SKIPPED explain why in the detail and do not fail a file."""

    PASSED = "passed"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclasses.dataclass(frozen=True)
class Check:
    """One verified property.

    Attributes:
        name: "finalized", "coarse", "codes", "integer", "levels", "layers", "agreement" or "tflm".
        verdict: the outcome.
        detail: one sentence on what was compared and found.
        layers: the layers at fault, in the file's order.
        figures: numbers behind the detail.
    """

    name: str
    verdict: Verdict
    detail: str
    layers: tuple[str, ...] = ()
    figures: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Share of correctly classified samples, at one output.

    Attributes:
        runner: what computed it: "Keras", "LiteRT", "TFLM" or "C".
        output: name of the output.
        share: from 0 to 1; None if it was not measured.
        reason: why not.
    """

    runner: str
    output: str
    share: float | None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """All checks of one file.

    Attributes:
        checks: what was found.
        accuracy: where labels were given; it does not affect the result.
    """

    checks: tuple[Check, ...]
    accuracy: tuple[Accuracy, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.verdict is not Verdict.FAILED for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        """The check called `name`."""
        return {check.name: check for check in self.checks}[name]


_AGAIN = "It was changed, or made from another model or by another version: convert again."
# Name of a check -> what its failure may mean, and what to try.
_ADVICE = {
    "layers": "The file was made from another state of the model (convert again), or a runtime has "
    "an operator wrong (report it, with the file).",
    "agreement": "Normalization and biases are as in the file only after tfbinreg.finalize(model, "
    'data): call it, save, convert again. If "layers" passed, what is left is rounding that grows '
    "through a deep net: judge it by --labels, or set --min_top1 and --max_mean_lsb.",
    "tflm": "TFLM rounds twice where LiteRT rounds once: judge by --labels what it costs, or set "
    "--min_top1 and --max_mean_lsb.",
    "proof": "Install what is missing: nothing is known yet of what is computed.",
}


def advice(check: Check) -> str:
    """What a failed check can mean and what to try; "" for others."""
    if check.verdict is not Verdict.FAILED:
        return ""
    by_bits = check.name == "tflm" and "mean_lsb" not in check.figures
    return _AGAIN if by_bits else _ADVICE.get(check.name, _AGAIN)


def decide(
    name: str, problems: list[tuple[str, str]], detail: str, figures: dict[str, float] | None = None
) -> Check:
    """FAILED with the (layer, what) pairs of `problems`; PASSED with `detail` if there are none."""
    if not problems:
        return Check(name, Verdict.PASSED, detail, figures=figures or {})
    text = "; ".join(f"{layer}: {what}" for layer, what in problems)
    layers = tuple(dict.fromkeys(layer for layer, _ in problems))
    return Check(name, Verdict.FAILED, text, layers, figures or {})


def unproven(deciding: Sequence[Check], what: str) -> tuple[Check, ...]:
    """The failed check "proof" if all checks that run `what` were skipped; nothing otherwise."""
    if not deciding or any(check.verdict is not Verdict.SKIPPED for check in deciding):
        return ()
    reasons = "; ".join(dict.fromkeys(check.detail for check in deciding))
    told = f"nothing was proven of what the {what} computes: {reasons}"
    return (Check("proof", Verdict.FAILED, told),)
