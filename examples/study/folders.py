"""Results as files: where they are, and which runs are done."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from examples.study.files import write_atomically
from examples.study.table import Row

RESULTS = Path(__file__).parent / "results"
CACHE = Path("runs") / "study"


@dataclasses.dataclass(frozen=True)
class Folders:
    """Where runs read and write.

    Attributes:
        data: holds cifar10.npz.
        results: a JSON file for each finished run, and the weights of float nets, from which all
            arms start, on whatever machine; small, to be committed.
        cache: checkpoints and other final weights; nothing that cannot be made again.
    """

    data: Path
    results: Path = RESULTS
    cache: Path = CACHE

    def result(self, row: Row) -> Path:
        return self.results / row.study / f"{row.key}.json"

    def checkpoint(self, row: Row) -> Path:
        return self.cache / row.study / f"{row.key}-{row.digest}.checkpoint.npz"

    def weights(self, row: Row) -> Path:
        if row.bits is None:
            return self.result(row).with_suffix(".npz")
        return self.cache / row.study / f"{row.key}-{row.digest}.npz"

    def lock(self, row: Row) -> Path:
        return self.cache / row.study / f"{row.key}.lock"


def read_result(folders: Folders, row: Row) -> dict[str, Any] | None:
    """The result of a run, None if it is not done.

    Raises:
        ValueError: if the file is of a run of this name with other settings.
    """
    path = folders.result(row)
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    if result["card"]["settings"] != row.settings():
        raise ValueError(
            f"{str(path)!r} was made with other settings than the study now names by "
            f"{row.name!r}: name the new arm differently, or remove the file."
        )
    return result


def write_result(folders: Folders, row: Row, result: dict[str, Any]) -> None:
    """One short line for each entry, so that files stay small and differences readable."""
    parts = []
    for name, value in result.items():
        entries = [f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
        parts.append(f" {json.dumps(name)}: {{\n" + ",\n".join(entries) + "\n }")
    text = "{\n" + ",\n".join(parts) + "\n}\n"
    write_atomically(folders.result(row), text.encode())


def is_done(folders: Folders, row: Row) -> bool:
    """Whether the run need not be made: a float net's weights must be there too."""
    done = read_result(folders, row) is not None
    return done and (row.bits is not None or folders.weights(row).exists())
