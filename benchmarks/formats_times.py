"""How long `convert` and `inspect` take."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import formats_nets
import rows
import tf_keras as keras
from formats_nets import Work
from measure import Summary, interleave
from stock import stock_converter

import tfbinreg
from tfbinreg.deploy import export
from tfbinreg.deploy.freeze import freeze
from tflite_tools.reports import describe as description
from tflite_tools.reports import report_text
from tflite_tools.schema.contents import load

_ROUNDS = 5


def convert_times(model: Any) -> rows.Row:
    """Seconds of `to_tflite`, and of the stock converter on the same graph, taking turns.

    The stock converter's time is given with tracing the graph, without which it has nothing to
    convert, and without.
    """
    frozen = freeze(model)
    traced: list[float] = []

    def stock(_: int) -> float:
        start = time.perf_counter()
        converter = stock_converter(frozen)
        middle = time.perf_counter()
        converter.convert()
        traced.append(time.perf_counter() - middle)
        return time.perf_counter() - start

    def ours(_: int) -> float:
        return _seconds(lambda: export.to_tflite(model))

    stock(1), ours(1), traced.clear()
    times = interleave({"to_tflite": ours, "stock": stock}, _ROUNDS, 1)
    medians = {name: Summary.of(values).median for name, values in times.items()}
    return {**medians, "stock without tracing": Summary.of(traced).median}


def inspected(work: Work) -> rows.Row:
    """Time of `inspect` for a file of 4 MB: what it does, and the whole command."""
    keras.utils.set_random_seed(0)
    data = tfbinreg.to_tflite(formats_nets.large(work))

    def shown() -> None:
        report_text.print_description(
            description.describe(load(data)), report_text.console(io.StringIO())
        )

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "large.tflite")
        with open(path, "wb") as file:
            file.write(data)
        command = [sys.executable, "-m", "tflite_tools", "inspect", path]

        def called() -> None:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        times = [[_seconds(call) for _ in range(_ROUNDS)] for call in (shown, called)]
    return {
        "bytes": len(data),
        "seconds": Summary.of(times[0]).median,
        "command": Summary.of(times[1]).median,
    }


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
