"""The rows of formats.py as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import rows

TARGETS = {"C": 1.10, "slim lut": 1.5, "slim int4": 1.15}  # of size / (weights x bits / 8)
LARGE = 200_000  # weights of a net from which on the targets count
MOST_CONVERT, MOST_INSPECT = 1.5, 1.0  # times the stock converter; seconds
DEVICE = "cortex-m4 -O2"
_REFERENCE = "W8A8"
_INT4_BITS = 4

_Row = Mapping[str, Any]


def markdown(found: Sequence[_Row]) -> str:
    """All tables, and below them what was not measured and why."""
    cells = [row for row in found if "formats" in row]
    parts = []
    for title, line in (
        ("Bytes of files; C is weights and constants", _sizes),
        ("Bytes over weights x bits / 8, and over the bits the layers have", _ratios),
        ("C: text + rodata (both without weights), bytes", lambda row: _c(row, cells)),
        ("Arenas, bytes; C's inputs and outputs come on top", _arenas),
        ("Differences", _differences),
        ("Seconds and milliseconds", _times),
    ):
        lines = [{"net": f"{row['net']} {row['setting']}", **line(row)} for row in cells]
        columns = list(dict.fromkeys(name for each in lines for name in each))
        parts.append(f"**{title}**\n\n{rows.markdown(columns, lines)}")
    parts += [_inspect(row) for row in found if "formats" not in row]
    reasons = {
        f"{name}: {reason}"
        for row in cells
        for name, reason in row["costs"]["not_measured"].items()
    }
    parts += [f"Not measured: {reason}" for reason in sorted(reasons)]
    return "\n\n".join(parts)


def _c_bytes(row: _Row) -> int:
    return row["costs"]["c_weights"] + row["costs"]["c_constants"]


def _format_bytes(row: _Row, name: str) -> int | None:
    return row["formats"][name]["bytes"] if name in row["formats"] else None


def _sizes(row: _Row) -> dict[str, Any]:
    names = ("slim int8", "int4", "slim int4", "lut", "slim lut")
    return {
        "weights": row["weights"],
        "at their bits": round(row["ideal"]),
        "int8": row["costs"]["bytes"],
        **{name: _format_bytes(row, name) for name in names},
        "C": _c_bytes(row),
    }


def _ratios(row: _Row) -> dict[str, Any]:
    sizes = {name: _format_bytes(row, name) for name in TARGETS if name != "C"}
    return {name: ratio(row, name, size) for name, size in {"C": _c_bytes(row), **sizes}.items()}


def ratio(row: _Row, name: str, size: int | None) -> str | None:
    """A size over the ideal ones, and whether that meets the target, where one counts: for nets of
    `LARGE` weights, and for INT4 at the bits it stores."""
    if size is None:
        return None
    nominal = size / row["nominal"]
    text = f"{nominal:.2f} / {size / row['ideal']:.2f}"
    stored = name != "slim int4" or row["nominal"] * 8 == row["weights"] * _INT4_BITS
    if row["weights"] < LARGE or not stored:
        return text
    return f"{text}, {'met' if nominal <= TARGETS[name] else 'missed'}"


def _c(row: _Row, cells: Sequence[_Row]) -> dict[str, Any]:
    costs = row["costs"]
    line: dict[str, Any] = {"weights": costs["c_weights"], "constants": costs["c_constants"]}
    for name, part in costs["builds"].items():
        beside = part["text"] + part["rodata"] - costs["c_weights"]
        line[name] = f"{part['text']} + {part['rodata']} ({beside})"
    count = _instructions(row)
    if count is not None:
        line["instructions"] = f"{count / 1e6:.2f} M"
        reference = [
            each for each in cells if (each["net"], each["setting"]) == (row["net"], _REFERENCE)
        ]
        base = _instructions(reference[0]) if reference else None
        line["of W8A8"] = f"{count / base:.3f}" if base else None
    return line


def _instructions(row: _Row) -> int | None:
    return row["costs"]["builds"].get(DEVICE, {}).get("instructions")


def _arenas(row: _Row) -> dict[str, Any]:
    kinds = {f"TFLM {name}": row["formats"].get(name) for name in ("int4", "lut")}
    return {
        "C": row["costs"]["c_arena"],
        "in + out": row["c"]["edges"],
        "TFLM int8": row["costs"]["arena"],
        **{name: None if kind is None else kind["arena"] for name, kind in kinds.items()},
    }


def _differences(row: _Row) -> dict[str, Any]:
    formats = row["formats"]
    line = {
        "codes": row["wrong_codes"] + sum(each["canonical"]["codes"] for each in formats.values()),
        "C / TFLM": _share(row["c"]),
    }
    for name, each in formats.items():
        own = each.get("own integers")
        line[name] = _share(each["canonical"] if own is None else own)
        if own is not None:
            line[f"{name} / int8"] = _share(each["canonical"])
            line[f"{name} / int8, alone"] = f"{each['alone_percent']:.2f} %"
    return line


def _share(found: _Row) -> str:
    return f"{found['different']} of {found['compared']}"


def _times(row: _Row) -> dict[str, Any]:
    times = row["convert"]
    whole = times["to_tflite"] / times["stock"]
    latency = row["costs"]["latency_ms"]
    return {
        "to_tflite": f"{times['to_tflite']:.3f}",
        "stock": f"{times['stock']:.3f}",
        "ratio": f"{whole:.2f}, {'met' if whole <= MOST_CONVERT else 'missed'}",
        "to a traced graph": f"{times['to_tflite'] / times['stock without tracing']:.2f}",
        "LiteRT ms": None if latency is None else f"{latency:.3f}",
    }


def _inspect(row: _Row) -> str:
    verdict = "met" if row["command"] < MOST_INSPECT else "missed"
    return (
        f"`inspect` on {row['bytes']} bytes: {row['seconds']:.2f} s, as a command "
        f"{row['command']:.2f} s (target {MOST_INSPECT:g} s, {verdict})"
    )
