"""Runs generated C on this computer, whether it takes whole samples or frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tflite_tools.c import host_run, pads, stream_text, streaming
from tflite_tools.c.host_run import CompilerError
from tflite_tools.c.streaming import Stream
from tflite_tools.pruning import smaller
from tflite_tools.schema import value_tables
from tflite_tools.schema.contents import Model


def takes_frames(files: Mapping[str, str]) -> bool:
    """Whether C, by names of its files, takes a sequence frame by frame."""
    return any(stream_text.MARK in text for name, text in files.items() if name.endswith(".c"))


def stream_of(model: Model) -> Stream:
    """What the C of a file computes and keeps if it takes frames.

    Raises:
        ValueError: as `streaming.of_graph`.
    """
    graph = smaller.of_model(model).model.main
    return streaming.of_graph(pads.joined(value_tables.joined(graph)))


def run(
    files: Mapping[str, str],
    model: Model,
    inputs: Sequence[np.ndarray],
    *,
    flags: Sequence[str] = host_run.SANITIZERS,
    time_limit: float = host_run.TIME_LIMIT,
) -> tuple[np.ndarray, ...]:
    """As `host_run.run`. A program that takes frames is given those of each sample from the
    beginning of a sequence on; what it writes for the whole sample is returned.

    Raises:
        ValueError: if the inputs do not fit.
        CompilerError: if there is no compiler, or compiling or running fails.
    """
    if not takes_frames(files):
        return host_run.run(files, model, inputs, flags=flags, time_limit=time_limit)
    stream, count = stream_of(model), host_run.stacked(model, inputs).shape[0]
    sequences = [frames_of([array[number] for array in inputs]) for number in range(count)]
    made = run_frames(files, stream, sequences, flags=flags, time_limit=time_limit)
    outputs = []
    for place, index in enumerate(model.main.outputs):
        shape = model.main.tensors[index].shape
        rows = math.prod(shape) // made[0][place].shape[1]
        parts = [own[place][stream.output.early :][:rows] for own in made]
        if any(len(part) != rows for part in parts):
            raise CompilerError(f"The program wrote fewer than {rows} rows for a sample.")
        outputs.append(np.stack(parts).reshape(count * shape[0], *shape[1:]))
    return tuple(outputs)


def frames_of(inputs: Sequence[np.ndarray]) -> np.ndarray:
    """One sequence as a program reads it, int8, (frames, bytes of the frames of all inputs); the
    inputs have time on their first axis."""
    return np.concatenate([array.reshape(len(array), -1) for array in inputs], axis=1)


def run_frames(
    files: Mapping[str, str],
    stream: Stream,
    sequences: Sequence[np.ndarray],
    *,
    flags: Sequence[str] = host_run.SANITIZERS,
    time_limit: float = host_run.TIME_LIMIT,
) -> list[list[np.ndarray]]:
    """What a program that takes frames writes for each sequence: int8, one array of a row for each
    time per output of the network.

    Raises:
        CompilerError: if there is no compiler, or compiling or running fails.
    """
    tensors = stream.graph.tensors
    sizes = [math.prod(tensors[index].shape) for index in stream.graph.outputs]
    made = host_run.run_frames(files, sequences, sum(sizes), flags=flags, time_limit=time_limit)
    return [np.split(rows, np.cumsum(sizes)[:-1], axis=1) for rows in made]
