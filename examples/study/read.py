"""Studies as JSON files, checked when they are read."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.study.arm import Arm
from examples.study.table import FLOAT, Study, read_bits

STUDIES = Path(__file__).parent / "studies"
_NAME = re.compile(r"[A-Za-z0-9_.+-]+")


def read_study(name: str, folder: Path = STUDIES) -> Study:
    """The study in `folder`/`name`.json, or in the file of the path `name`.

    Raises:
        ValueError: if there is no such file, or with everything that is wrong in it.
    """
    path = Path(name) if name.endswith(".json") else folder / f"{name}.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"No study can be read from {str(path)!r}: {error}") from None
    arms, problems = _read_arms(fields.pop("common", {}), fields.pop("arms", {}))
    start = fields.pop("start", None)
    given: dict[str, Any] = {"report": False, "rows": (35000, 40000, 50000), **fields}
    wanted = {field.name for field in dataclasses.fields(Study)} - {"name", "arms", "start"}
    problems += [f"{name!r} is missing" for name in sorted(wanted - given.keys())]
    problems += [f"{name!r} is no field of a study" for name in sorted(given.keys() - wanted)]
    problems = problems or _problems(given, arms, start)
    if problems:
        raise ValueError(f"Study {str(path)!r}: {'; '.join(problems)}.")
    for field in ("nets", "bits", "seeds", "rows"):
        given[field] = tuple(given[field])
    float_study = None if start is None else _float_study(start, path.parent)
    return Study(name=path.stem, arms=arms, start=float_study, **given)


def _read_arms(common: Any, own: Any) -> tuple[dict[str, Arm], list[str]]:
    """The arms by name, each with what is common to all, and what is wrong in them."""
    arms: dict[str, Arm] = {}
    problems = []
    for name, fields in own.items():
        try:
            arms[name] = Arm.of({**common, **fields})
        except ValueError as error:
            problems.append(f"arm {name!r}: {error}")
    return arms, problems


def _problems(fields: Mapping[str, Any], arms: Mapping[str, Arm], start: Any) -> list[str]:
    found = [f"{name!r} cannot name a file" for name in arms if not _NAME.fullmatch(name)]
    found += [
        f"bits must be like 'w2a2', or 'float', got {bits!r}"
        for bits in fields["bits"]
        if bits != FLOAT and read_bits(bits) is None
    ]
    if fields["baseline"] not in arms:
        found.append(f"the baseline {fields['baseline']!r} is not among the arms")
    if start is None and any(bits != FLOAT for bits in fields["bits"]):
        found.append("quantized nets need a float one: 'start' names its study")
    ends = list(fields["rows"])
    if len(ends) != 3 or ends != sorted(set(ends)) or ends[0] <= 0:
        found.append(f"rows must be three growing numbers, got {ends}")
    return found


def _float_study(name: str, folder: Path) -> Study:
    study = read_study(name, folder)
    if study.bits != (FLOAT,) or len(study.arms) != 1 or len(study.seeds) != 1:
        raise ValueError(f"Study {name!r} is a start only with bits 'float', one arm and one seed.")
    return study
