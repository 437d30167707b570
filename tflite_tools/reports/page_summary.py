"""The top of the page of `report`, which says whether the file is right, and its checks."""

from __future__ import annotations

import math

from tflite_tools.checks.verdict import Report, Verdict, advice
from tflite_tools.reports import markup
from tflite_tools.reports.describe import Description, TensorSummary
from tflite_tools.reports.sizes import limits


def summary(description: Description, verification: Report | None) -> str:
    """The verdict, the sizes, the inputs and the outputs."""
    rows = [("file", f"{description.size} bytes"), ("weights", _weights(description))]
    if description.target is not None:
        finalized = "finalized for it" if description.finalized else "not finalized"
        rows.append(("made for", f"{description.target}; the model was {finalized}"))
    rows += [("accuracy", text) for text in _accuracies(verification)]
    edges = [("input", tensor) for tensor in description.inputs]
    edges += [("output", tensor) for tensor in description.outputs]
    rows += [(kind, _edge(tensor)) for kind, tensor in edges]
    return _verdict(verification) + markup.table((), rows)


def _verdict(verification: Report | None) -> str:
    """One sentence with the outcome of the checks."""
    if verification is None:
        return _banner("skipped", "Not verified: no trained model was given.")
    by = {
        verdict: [check.name for check in verification.checks if check.verdict is verdict]
        for verdict in Verdict
    }
    if by[Verdict.FAILED]:
        failed = f"Verification FAILED: {', '.join(by[Verdict.FAILED])}."
        return _banner("failed", f"{failed} What to do stands beside the checks.")
    passed = len(by[Verdict.PASSED])
    text = f"Verified: {passed} check{'s' * (passed != 1)} passed"
    for verdict, word in ((Verdict.WARNING, "with a warning"), (Verdict.SKIPPED, "skipped")):
        if by[verdict]:
            text += f", {word}: {', '.join(by[verdict])}"
    return _banner("passed", f"{text}.")


def _banner(kind: str, content: str) -> str:
    return f"<p class='verdict {kind}'>{markup.text(content)}</p>"


def _weights(description: Description) -> str:
    """What the weights take, against float32 and int8."""
    found = [layer.limits for layer in limits(description)]
    if not found:
        return "none"
    whole, bytes_, codes = (sum(sizes) for sizes in zip(*found, strict=True))
    text = f"{whole} bytes as float32, {bytes_} as int8, {codes} at their bits"
    return text + (f": 1/{whole / codes:.1f} of float32" if codes else "")


def _accuracies(verification: Report | None) -> list[str]:
    """What was measured where labels were given."""
    if verification is None:
        return []
    return [
        f"{own.runner}, {own.output}: "
        + (f"not measured, {own.reason}" if own.share is None else f"{100 * own.share:.2f} %")
        for own in verification.accuracy
    ]


def _edge(tensor: TensorSummary) -> str:
    """Name, type and sizes of an input or output, and what its numbers mean."""
    shape = " x ".join(map(str, tensor.shape))
    text = f"{tensor.name}: {tensor.dtype.lower()}, {shape} ({math.prod(tensor.shape)} values)"
    if tensor.scale is None or tensor.zero_point is None or len(tensor.scale) != 1:
        return text
    zero = tensor.zero_point[0]
    offset = "stored" if zero == 0 else f"(stored {'-' if zero > 0 else '+'} {abs(zero)})"
    return f"{text}, real = {tensor.scale[0]:.6g} * {offset}"


def checks(verification: Report | None) -> str:
    """The checks one by one; for those that failed, what to do."""
    if verification is None:
        return markup.note("Not verified: no trained model was given.")
    rows = []
    for check in verification.checks:
        told = markup.text(check.detail)
        if what := advice(check):
            told += f"<br><b>What to do:</b> {markup.text(what)}"
        kind = check.verdict.value
        rows.append((markup.text(check.name), f"<span class='{kind}'>{kind}</span>", told))
    return markup.raw_table((), rows)
