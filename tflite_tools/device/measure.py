"""What a device takes for an inference, and how many of its outputs are not those of TFLM."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence

import numpy as np

from tflite_tools.c import generate, host_run, packages
from tflite_tools.device.conversation import Conversation
from tflite_tools.device.lines import Hello
from tflite_tools.running import runtime
from tflite_tools.running.runtime import LITERT, TFLM, RuntimeFailedError
from tflite_tools.schema.contents import Model
from tflite_tools.system.progress import Advance, quietly

SAMPLES, REPEATS = 10, 3
HERE = "C on this computer"
_WRAP = 2**32  # ticks, after which counters begin anew
_FASTEST = 1_000_000_000  # Hz, where a device does not know its clock
_NEEDED = (
    "Comparing outputs needs TFLM (pip install tflite-micro, or 'tfbinreg[micro]') or a C compiler."
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a device did.

    Attributes:
        device: how it was reached.
        network: the name of its network.
        core: of its processor, as it says.
        unit: of the ticks: cycles, microseconds, or instructions in an emulator.
        hz: ticks in a second; 0 if it does not know.
        runs: inferences.
        median: ticks of an inference; None if they were not counted.
        least: likewise.
        most: likewise.
        not_counted: why there are no ticks; empty if there are.
        numbers: outputs that were compared.
        reference: whose outputs the device's have to be: TFLM's, or those of `HERE`.
        different: name of a runtime -> how many outputs are not its own.
    """

    device: str
    network: str
    core: str
    unit: str
    hz: int
    runs: int
    median: float | None
    least: int | None
    most: int | None
    not_counted: str
    numbers: int
    reference: str
    different: Mapping[str, int]

    @property
    def passed(self) -> bool:
        """Whether every output is that of the reference."""
        return self.different[self.reference] == 0


@dataclasses.dataclass(frozen=True, eq=False)
class Expected:
    """What a device has to compute.

    Attributes:
        rows: int8, (samples, bytes of all inputs).
        reference: whose outputs the device's have to be.
        outputs: name of a runtime -> int8, (samples, bytes of all outputs).
        outputs_hash: of the reference's outputs for the sample of the packages' example.
        inputs: bytes of each input.
        sizes: bytes of each output.
    """

    rows: np.ndarray
    reference: str
    outputs: Mapping[str, np.ndarray]
    outputs_hash: int
    inputs: tuple[int, ...]
    sizes: tuple[int, ...]


def expected(model: Model, inputs: Sequence[np.ndarray]) -> Expected:
    """Run a file on this computer.

    Args:
        model: the file, with int8 inputs and outputs.
        inputs: one int8 array per input, samples along the first axis.

    Raises:
        ValueError: if an input or output is not int8, or the inputs do not fit.
        RuntimeError: if there is neither TFLM nor a C compiler, or they cannot run the file.
    """
    ends = [model.main.tensors[i] for i in (*model.main.inputs, *model.main.outputs)]
    if any(tensor.dtype != "INT8" for tensor in ends):
        raise ValueError(
            "Devices run C, whose inputs and outputs are int8: convert with --input_type int8."
        )
    rows, example = host_run.stacked(model, inputs), packages.inputs_of(model)
    both = [np.concatenate(pair) for pair in zip(inputs, example, strict=True)]
    if runtime.available(TFLM):
        reference, made = TFLM, runtime.run(model, both, runtime=TFLM).outputs
    elif host_run.compiler() is not None:
        reference, made = HERE, host_run.run(generate.generate(model).files, model, both)
    else:
        raise RuntimeError(_NEEDED)
    outputs = {reference: _flat(made)[:-1]}
    with contextlib.suppress(RuntimeFailedError):  # a file for TFLM alone
        outputs[LITERT] = _flat(runtime.run(model, inputs, runtime=LITERT).outputs)
    return Expected(
        rows,
        reference,
        outputs,
        packages.hash_of([array[-1:] for array in made]),
        tuple(array[0].size for array in inputs),
        tuple(array[0].size for array in made),
    )


def measure(
    talk: Conversation,
    wanted: Expected,
    *,
    device: str,
    repeats: int = REPEATS,
    advance: Advance = quietly,
) -> Measured:
    """Run every sample on a device.

    Args:
        talk: with the device.
        wanted: samples and what to compare with.
        device: how it is called in the result.
        repeats: inferences of each sample; the outputs of the last are read.
        advance: told of the progress.

    Raises:
        RuntimeError: if the device holds another network, refuses, is silent or gone.
    """
    check_network(talk.hello, wanted)
    ticks, seconds = [], []
    found = np.empty((len(wanted.rows), sum(wanted.sizes)), np.int8)
    for place, row in enumerate(wanted.rows):
        advance(place / len(wanted.rows), f"{device}: sample {place + 1} of {len(wanted.rows)}")
        talk.load(row.tobytes())
        for _ in range(repeats):
            begin = time.monotonic()
            ticks.append(talk.run())
            seconds.append(time.monotonic() - begin)
        found[place] = np.frombuffer(talk.outputs(), np.int8)
    hello, reason = talk.hello, _not_counted(talk.hello, ticks, max(seconds))
    return Measured(
        device=device,
        network=hello.name,
        core=hello.core,
        unit=hello.unit,
        hz=hello.hz,
        runs=len(ticks),
        median=None if reason else float(np.median(ticks)),
        least=None if reason else min(ticks),
        most=None if reason else max(ticks),
        not_counted=reason,
        numbers=found.size,
        reference=wanted.reference,
        different={
            name: int(np.count_nonzero(found != outputs))
            for name, outputs in wanted.outputs.items()
        },
    )


def check_network(hello: Hello, wanted: Expected) -> None:
    """Check that a device holds the network of the file.

    Raises:
        RuntimeError: if its sizes are others, or the outputs that its example expects.
    """
    if (hello.inputs, hello.outputs) != (wanted.inputs, wanted.sizes):
        raise RuntimeError(
            f"The device holds another network: {hello.name!r} with inputs of "
            f"{_listed(hello.inputs)} and outputs of {_listed(hello.outputs)} bytes, where the "
            f"file has {_listed(wanted.inputs)} and {_listed(wanted.sizes)}."
        )
    if hello.outputs_hash != wanted.outputs_hash:
        raise RuntimeError(
            f"The device holds another network: {hello.name!r} has the file's sizes, but was made "
            "of a file that computes something else. Write the package of this file to it."
        )


def _not_counted(hello: Hello, ticks: Sequence[int], longest: float) -> str:
    """Why ticks say nothing; empty if they do."""
    if not any(ticks):
        return "its counter stands still"
    if longest * (hello.hz or _FASTEST) >= _WRAP:
        return f"an inference took {longest:.1f} seconds, in which its counter may begin anew"
    return ""


def _flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
