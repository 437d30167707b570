"""The command `benchmark`: a file on this computer, or on devices."""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable, Iterator

from tflite_tools.c import generate, packages
from tflite_tools.c.host_run import CompilerError
from tflite_tools.commands import given
from tflite_tools.commands.exit_codes import FAILURE, SUCCESS
from tflite_tools.device import emulated, measure, serial_port
from tflite_tools.device.conversation import Conversation
from tflite_tools.device.measure import Expected, Measured
from tflite_tools.formats import build
from tflite_tools.reports import bench, bench_text, report_text
from tflite_tools.running import samples
from tflite_tools.running.runtime import RuntimeFailedError
from tflite_tools.schema.contents import Model
from tflite_tools.system.progress import Advance, progress

_NAME = "model"  # of the network in the firmware of emulated devices
_Port = Callable[[], contextlib.AbstractContextManager[str]]


def benchmark(arguments: argparse.Namespace) -> int:
    """Measure a file and print the figures.

    Returns:
        Exit code: 0, or 1 if a device computes something else.
    """
    given.check_paths(arguments)
    model = given.opened(arguments.file)
    if arguments.serial is not None or arguments.emulator:
        return _on_devices(arguments, model)
    inputs = samples.stored(model, given.inputs_for(arguments, model, 1))
    with progress(enabled=not arguments.json) as advance:
        found = bench.benchmark(
            model,
            inputs,
            threads=arguments.threads,
            warm_up=arguments.warm_up,
            runs=arguments.runs,
            advance=advance,
        )
    if arguments.json:
        print(bench_text.benchmark_json(found))
    else:
        bench_text.print_benchmark(found, report_text.console())
    return SUCCESS


def _on_devices(arguments: argparse.Namespace, model: Model) -> int:
    serial_port.check_installed()
    inputs = samples.stored(model, given.inputs_for(arguments, model, measure.SAMPLES))
    try:
        with progress(enabled=not arguments.json) as advance:
            advance(None, "outputs of this computer")
            wanted = measure.expected(model, inputs)
            found = tuple(
                _on_device(arguments, wanted, device, port, advance)
                for device, port in _devices(arguments, model, wanted)
            )
    except (CompilerError, RuntimeFailedError) as error:
        raise RuntimeError(" ".join(str(error).split())) from error
    if arguments.json:
        print(bench_text.devices_json(len(model.data), found))
    else:
        bench_text.print_devices(len(model.data), found, report_text.console())
    return SUCCESS if all(device.passed for device in found) else FAILURE


def _devices(
    arguments: argparse.Namespace, model: Model, wanted: Expected
) -> Iterator[tuple[str, _Port]]:
    """Name of a device, and what gives the address of its port while it is used."""
    if arguments.serial is not None:
        address: str = arguments.serial
        yield address, lambda: contextlib.nullcontext(address)
    if not arguments.emulator:
        return
    build.check_canonical(model)
    sources = generate.generate(model, name=_NAME)
    headers = packages.example(sources, model, name=_NAME, outputs_hash=wanted.outputs_hash)
    for cpu in arguments.emulator:
        yield f"{cpu} (emulated)", functools.partial(emulated.running, sources, headers, cpu=cpu)


def _on_device(
    arguments: argparse.Namespace, wanted: Expected, device: str, port: _Port, advance: Advance
) -> Measured:
    advance(None, f"{device}: waiting for its hello")
    with port() as address, serial_port.opened(address, baud=arguments.baud) as link:
        talk = Conversation(link, name=device, timeout=arguments.timeout)
        return measure.measure(
            talk, wanted, device=device, repeats=arguments.repeats, advance=advance
        )
