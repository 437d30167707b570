"""`Arm`: one way of training a net, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

OPTIMIZERS = ("adam", "sgd")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of training a net.

    Attributes:
        epochs: passes over the training rows.
        batch: images in a batch.
        optimizer: "adam", or "sgd" with momentum 0.9.
        rate: learning rate of the first batch; a cosine takes it to zero.
        weight_decay: what a kernel loses per step, times the rate (decoupled); nothing else decays.
        step_rate: that of the recipe.
        augment: whether images are cropped and flipped at random.
        recipe: fields of `tfbinreg.Recipe`; the bits are the row's where it names none.
        flash: options of `tfbinreg.fit_flash_budget`, "limit" among them, which chooses bits for
            each kernel or channel; None for those of the recipe.
        solve: whether the recipe's solver runs before the training, with the calibration images.
        quantize: options of `tfbinreg.quantize_apply`.
        distill: options of `tfbinreg.distill`, whose teacher is the float net; None for no teacher.
        callbacks: each the name of a callback in `tfbinreg` as "name" and its arguments.
    """

    epochs: int
    batch: int = 100
    optimizer: str = "adam"
    rate: float = 0.001
    weight_decay: float = 0.0
    step_rate: float = 1.0
    augment: bool = True
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    flash: Mapping[str, Any] | None = None
    solve: bool = False
    quantize: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    distill: Mapping[str, Any] | None = None
    callbacks: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if self.optimizer not in OPTIMIZERS:
            problems.append(f"optimizer must be one of {', '.join(OPTIMIZERS)}")
        if self.epochs < 1 or self.batch < 1:
            problems.append("epochs and batch must be at least 1")
        if self.rate <= 0 or self.weight_decay < 0 or self.step_rate < 0:
            problems.append("rate must be positive, weight_decay and step_rate not negative")
        if self.flash is not None and "limit" not in self.flash:
            problems.append("flash needs a limit")
        if any("name" not in callback for callback in self.callbacks):
            problems.append("every callback needs a name")
        if problems:
            raise ValueError("; ".join(problems))
        object.__setattr__(self, "callbacks", tuple(self.callbacks))

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Arm:
        """From a JSON object; ValueError for what is missing, unknown or wrong."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(fields.keys() - known)
        if unknown or "epochs" not in fields:
            missing = [] if "epochs" in fields else ["'epochs' is missing"]
            raise ValueError("; ".join([f"no field {name!r}" for name in unknown] + missing))
        return cls(**fields)

    def settings(self) -> dict[str, Any]:
        """The fields that are not what they are by default. So a field that arms get one day
        leaves the results of today what they are."""
        plain = dataclasses.asdict(Arm(epochs=self.epochs))
        own = dataclasses.asdict(self)
        return {"epochs": self.epochs} | {n: v for n, v in own.items() if v != plain[n]}
