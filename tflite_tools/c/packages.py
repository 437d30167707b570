"""Generated C as a folder that a build system takes as it is: an Arduino library, a PlatformIO
library, an ESP-IDF component, a Zephyr module or a CMSIS-Pack.

All have one form: the network in src/, the program for a computer in extras/, an example for the
device, which tells cycles and whether its outputs are right, and the files that the system asks
for. These and the example are the templates in `package_templates`, with words between @ signs.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from tflite_tools.c import host_run
from tflite_tools.c.generate import Sources
from tflite_tools.c.source_folder import EXAMPLE, EXTRAS, SOURCES, files_of
from tflite_tools.running import runtime
from tflite_tools.schema.contents import Model, Tensor

TEMPLATES = pathlib.Path(__file__).parent / "package_templates"
PACKAGES = ("arduino", "platformio", "esp-idf", "zephyr", "cmsis-pack")
_NEEDED = "--package needs TFLM or a C compiler, which tell the outputs that its example expects"
_SHARED = TEMPLATES / "shared"
_ARDUINO, _PLATFORMIO = "examples/infer", "examples/infer/src"
# Where what several packages share goes: template -> path.
_SHARES: Mapping[str, Mapping[str, str]] = {
    "arduino": {
        "infer.h": f"{_ARDUINO}/infer.h",
        "serve.h": f"{_ARDUINO}/serve.h",
        "ticks.h": f"{_ARDUINO}/ticks.h",
        "sketch": f"{_ARDUINO}/infer.ino",
    },
    "platformio": {
        "infer.h": f"{_PLATFORMIO}/infer.h",
        "serve.h": f"{_PLATFORMIO}/serve.h",
        "ticks.h": f"{_PLATFORMIO}/ticks.h",
        "sketch": f"{_PLATFORMIO}/main.cpp",
    },
    "esp-idf": {
        "infer.h": "examples/infer/main/infer.h",
        "serve.h": "examples/infer/main/serve.h",
    },
    "zephyr": {
        "infer.h": "samples/infer/src/infer.h",
        "serve.h": "samples/infer/src/serve.h",
        "ticks.h": "samples/infer/src/ticks.h",
    },
    "cmsis-pack": {
        "infer.h": "examples/infer/infer.h",
        "serve.h": "examples/infer/serve.h",
        "ticks.h": "examples/infer/ticks.h",
    },
}
_WORD = re.compile(r"@(\w+)@")


def paths(name: str, package: str | None) -> list[str]:
    """The files that are written for a network called `name`, as paths in the folder.

    Args:
        name: of the network.
        package: one of `PACKAGES`, None for the sources alone.
    """
    own = files_of(name)
    if package is None:
        return own
    return [_place(file) for file in own] + [path for path, _ in _templates(name, package)]


def pack(sources: Sources, model: Model, *, name: str, package: str) -> dict[str, str]:
    """The files of a package.

    Args:
        sources: the C of the network.
        model: the canonical file it was made from.
        name: of the network.
        package: one of `PACKAGES`.

    Returns:
        path in the folder, with forward slashes -> text.

    Raises:
        RuntimeError: if nothing is installed that could compute the outputs of the example.
    """
    files = {_place(file): text for file, text in sources.files.items()}
    words = _words(sources, model, name, hash_of(_outputs(sources, model)))
    for path, template in _templates(name, package):
        files[path] = filled(template.read_text(), words)
    return files


def example(sources: Sources, model: Model, *, name: str, outputs_hash: int) -> dict[str, str]:
    """The headers of the example that all packages share, for a program of another platform: what
    it infers and how it is served at a serial port.

    Args:
        sources: the C of the network.
        model: the canonical file it was made from.
        name: of the network.
        outputs_hash: `hash_of` the right outputs for `inputs_of` the model.

    Returns:
        name of a file -> text.
    """
    words = _words(sources, model, name, outputs_hash)
    shared = {file: _SHARED / f"{file}.in" for file in ("infer.h", "serve.h")}
    return {file: filled(template.read_text(), words) for file, template in shared.items()}


def filled(text: str, words: Mapping[str, str]) -> str:
    """A template with its words put in; KeyError for one that nobody knows."""
    return _WORD.sub(lambda match: words[match[1]], text)


def inputs_of(model: Model) -> tuple[np.ndarray, ...]:
    """The sample that the example makes: one array of one sample per input, int8.

    state <- 1664525 state + 1013904223 mod 2^32, from 1;  value = state / 2^24 - 128
    """
    state, made = 1, []
    for tensor in _ends(model, "input"):
        values = np.empty(math.prod(tensor.shape), np.int8)
        for index in range(values.size):
            state = (state * 1664525 + 1013904223) % 2**32
            values[index] = (state >> 24) - 128
        made.append(values.reshape(tensor.shape))
    return tuple(made)


def hash_of(outputs: Sequence[np.ndarray]) -> int:
    """The 32-bit FNV-1a hash of the bytes of arrays, one behind the other."""
    found = 2166136261
    for byte in b"".join(values.tobytes() for values in outputs):
        found = (found ^ byte) * 16777619 % 2**32
    return found


def _place(file: str) -> str:
    """Where one of the network's own files lies in a package."""
    return f"{EXTRAS if file == EXAMPLE else SOURCES}/{file}"


def _templates(name: str, package: str) -> list[tuple[str, pathlib.Path]]:
    """The files of a package as path in the folder and template."""
    own = TEMPLATES / package
    found = [
        (
            template.relative_to(own).as_posix().removesuffix(".in").replace("NAME", name),
            template,
        )
        for template in sorted(own.rglob("*.in"))
    ]
    shared = [(path, _SHARED / f"{word}.in") for word, path in _SHARES[package].items()]
    return found + shared


def _words(sources: Sources, model: Model, name: str, outputs_hash: int) -> dict[str, str]:
    """What stands for the words of the templates."""
    inputs, outputs = (_buffers(model, name, kind) for kind in ("input", "output"))
    buffers = [f"static int8_t {buffer}[{size}];" for buffer, size in (*inputs, *outputs)]
    return {
        "name": name,
        "NAME": name.upper(),
        "arena": str(sources.arena_bytes),
        "flash": str(sources.packed_weight_bytes + sources.constant_bytes),
        "buffers": "\n".join(buffers),
        "inputs": _initializer(inputs),
        "outputs": _initializer(outputs),
        "arguments": ", ".join(buffer for buffer, _ in (*inputs, *outputs)),
        "hash": f"0x{outputs_hash:08x}",
    }


def _buffers(model: Model, name: str, kind: str) -> list[tuple[str, str]]:
    """The example's buffers for inputs or outputs, with the macros of their sizes."""
    count = len(_ends(model, kind))
    return [(f"{kind}{k}", f"{name.upper()}_{kind.upper()}_{k}_SIZE") for k in range(count)]


def _initializer(buffers: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{{{buffer}, {size}}}" for buffer, size in buffers)


def _outputs(sources: Sources, model: Model) -> tuple[np.ndarray, ...]:
    """What the example has to compute: TFLM's outputs, else those of the C on this computer."""
    inputs = inputs_of(model)
    if runtime.available(runtime.TFLM):
        return runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    if host_run.compiler() is None:
        raise RuntimeError(_NEEDED)
    return host_run.run(sources.files, model, inputs)


def _ends(model: Model, kind: str) -> list[Tensor]:
    """The inputs or outputs of a file."""
    indices = model.main.inputs if kind == "input" else model.main.outputs
    return [model.main.tensors[index] for index in indices]
