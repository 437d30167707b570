"""A study as data: arms x nets x bits x seeds, and the rows that follow from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from examples.study.arm import Arm

FLOAT = "float"
_BITS = re.compile(r"w(\d)a(\d)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One run.

    Attributes:
        study: name of the study it belongs to.
        net: a key of `nets.NETS`.
        bits: (weights, activations), or None for a float net.
        name: what the study calls the arm.
        arm: how the net is trained.
        seed: of the order of the images, their augmentation and, in float, the first weights.
        rows: where the training, choice and test rows of the data end.
        report: whether the test rows are looked at.
        start: the float net it starts from; None for a float net itself.
    """

    study: str
    net: str
    bits: tuple[int, int] | None
    name: str
    arm: Arm
    seed: int
    rows: tuple[int, int, int]
    report: bool
    start: Row | None

    @property
    def key(self) -> str:
        """Names the run within its study, and its files."""
        bits = FLOAT if self.bits is None else "w{}a{}".format(*self.bits)
        return f"{self.net}-{bits}-{self.name}-s{self.seed}"

    def settings(self) -> dict[str, Any]:
        """Everything that decides what the run comes to, as JSON knows it."""
        fields = dataclasses.asdict(self)
        for name in ("study", "name"):
            del fields[name]
        fields["arm"] = self.arm.settings()
        fields["start"] = None if self.start is None else self.start.settings()
        return json.loads(json.dumps(fields))

    @property
    def digest(self) -> str:
        """Of the settings: files of runs with other settings are told apart by it."""
        text = json.dumps(self.settings(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A table of runs.

    Attributes:
        name: of its file, without the ending.
        about: what it is to find out.
        report: whether its runs look at the test rows. Only a study that chooses nothing may.
        baseline: the arm that the others are compared with.
        nets: keys of `nets.NETS`.
        bits: "w2a2" and the like, or "float".
        seeds: one run of each arm per seed; arms are compared seed by seed.
        arms: how nets are trained, by name.
        start: name of the study beside it whose float nets these runs start from.
        rows: see `Row`.
    """

    name: str
    about: str
    report: bool
    baseline: str
    nets: tuple[str, ...]
    bits: tuple[str, ...]
    seeds: tuple[int, ...]
    arms: Mapping[str, Arm]
    start: Study | None
    rows: tuple[int, int, int]

    def runs(self) -> list[Row]:
        """All rows; those of the first seed come first, so that every arm is seen early."""
        return [
            self._row(net, bits, name, seed)
            for seed in self.seeds
            for net in self.nets
            for bits in self.bits
            for name in self.arms
        ]

    def find(self, key: str) -> Row:
        """The row of this key; ValueError if there is none."""
        for row in self.runs():
            if row.key == key:
                return row
        raise ValueError(f"Study {self.name!r} has no row {key!r}; `list {self.name}` shows all.")

    def _row(self, net: str, bits: str, name: str, seed: int) -> Row:
        start = None
        if bits != FLOAT and self.start is not None:
            [arm], [float_seed] = self.start.arms, self.start.seeds
            start = self.start._row(net, FLOAT, arm, float_seed)
        return Row(
            study=self.name,
            net=net,
            bits=read_bits(bits),
            name=name,
            arm=self.arms[name],
            seed=seed,
            rows=self.rows,
            report=self.report,
            start=start,
        )


def read_bits(text: str) -> tuple[int, int] | None:
    """(2, 8) of "w2a8"; None of "float" and whatever else."""
    found = _BITS.fullmatch(text)
    return None if found is None else (int(found[1]), int(found[2]))
