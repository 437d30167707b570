"""What `finalize` found and did: values that print as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

_LISTED = 10  # channels in the text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """How a model does on the data that `finalize` was given.

    Attributes:
        samples: number of samples.
        accuracy: share of correctly classified samples; None if the labels are not classes.
        loss: loss of the compiled model, without regularization; None without labels or loss.
        distance: without labels, the distance of the outputs from those with the statistics of each
            batch: mean squared difference divided by their variance.
    """

    samples: int
    accuracy: float | None = None
    loss: float | None = None
    distance: float | None = None

    def is_better_than(self, other: Score) -> bool:
        """Whether the accuracy is higher or, at equal accuracy, the loss or distance smaller."""
        return self._order() < other._order()

    def _order(self) -> tuple[float, ...]:
        return (-(self.accuracy or 0.0), self.loss or 0.0, self.distance or 0.0)

    def __str__(self) -> str:
        parts = []
        if self.accuracy is not None:
            parts.append(f"accuracy {100 * self.accuracy:.2f} %")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4g}")
        if self.distance is not None:
            parts.append(f"distance {self.distance:.3g} from outputs by batch statistics")
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatisticsChoice:
    """Which batch-normalization statistics were kept.

    Attributes:
        kept: "re-estimated" or "as trained".
        reestimated: the score with the re-estimated statistics.
        trained: the score with those of training; None if the model has no exact integer form with
            them.
    """

    kept: str
    reestimated: Score
    trained: Score | None

    def __str__(self) -> str:
        trained = "no exact integer form" if self.trained is None else str(self.trained)
        return (
            f"batch normalization: {self.kept}, the better on {self.reestimated.samples} samples\n"
            f"  re-estimated: {self.reestimated}\n"
            f"  as trained: {trained}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdChannel:
    """A channel with many values on a rounding threshold.

    Attributes:
        layer: the layer that quantizes it.
        channel: index of the channel.
        share: share of its values on a threshold.
    """

    layer: str
    channel: int
    share: float

    def __str__(self) -> str:
        return f"{self.layer} channel {self.channel} ({100 * self.share:.0f} % of its values)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinalizeReport:
    """What `finalize` did. `print` shows it.

    Attributes:
        statistics: which batch-normalization statistics were kept; None if no data was given, or
            the model has no statistics of its own.
        on_threshold: channels of 4 bits and fewer with many values on a rounding threshold: any
            change of a mean or a bias moves all of these values by a level.
        long_constants: with `short_constants`, the layers whose constants do not fit the short
            form; None without.
    """

    statistics: StatisticsChoice | None = None
    on_threshold: tuple[ThresholdChannel, ...] = ()
    long_constants: tuple[str, ...] | None = None

    def __str__(self) -> str:
        lines = [str(self.statistics or "batch normalization: left as it was")]
        if self.on_threshold:
            lines.append(f"on a rounding threshold: {_listed(self.on_threshold)}")
        if self.long_constants:
            lines.append(f"constants stay long: {_listed(self.long_constants)}")
        elif self.long_constants is not None:
            lines.append("constants: three bytes a channel in generated C")
        return "\n".join(lines)


def _listed(parts: Sequence[object]) -> str:
    names = [str(part) for part in parts[:_LISTED]]
    more = len(parts) - len(names)
    return ", ".join([*names, *([f"{more} more"] if more else [])])
