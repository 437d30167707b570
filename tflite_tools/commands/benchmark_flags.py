"""The flags of `benchmark`."""

from __future__ import annotations

import argparse
import math

from tflite_tools.c import boards
from tflite_tools.commands.flags import add_inputs, at_least
from tflite_tools.device import conversation, measure, serial_port
from tflite_tools.reports import bench
from tflite_tools.system.suggestions import suggestion


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """File, threads and runs on this computer, devices, and samples."""
    parser.add_argument("file", metavar="FILE", help="a .tflite file of any format")
    parser.add_argument(
        "--threads",
        type=_numbers,
        default=bench.THREADS,
        metavar="N[,N...]",
        help="number of LiteRT threads; several numbers are measured in turn (default: 1)",
    )
    parser.add_argument(
        "--warm_up",
        type=at_least(0),
        default=bench.WARM_UP,
        metavar="N",
        help="runs before the timed ones (default: %(default)s)",
    )
    parser.add_argument(
        "--runs",
        type=at_least(1),
        default=bench.RUNS,
        metavar="N",
        help="timed runs (default: %(default)s)",
    )
    _add_devices(parser)
    add_inputs(parser, default=None, text=f"{measure.SAMPLES} on a device, 1 here")


def _add_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--serial",
        metavar="PORT",
        help="measure a device instead of this computer; it runs the example of `convert "
        "--package`: /dev/ttyACM0, COM3, or socket://HOST:PORT; needs pyserial",
    )
    parser.add_argument(
        "--baud",
        type=at_least(1),
        default=serial_port.BAUD,
        metavar="N",
        help="bits per second of the --serial port (default: %(default)s)",
    )
    parser.add_argument(
        "--emulator",
        type=_processors,
        default=(),
        metavar="CPU[,CPU...]",
        help="measure processors that QEMU emulates, with the same protocol: "
        f"{', '.join(boards.CPUS)}",
    )
    parser.add_argument(
        "--repeats",
        type=at_least(1),
        default=measure.REPEATS,
        metavar="N",
        help="runs of each sample on a device (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=conversation.TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for a device's answer (default: %(default)g)",
    )


def _processors(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in boards.CPUS:
            known = suggestion(name, boards.CPUS)
            raise argparse.ArgumentTypeError(f"no emulated board has a {name!r}{known}")
    return names


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(at_least(1), text.split(",")))
