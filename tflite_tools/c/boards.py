"""Generated C on emulated processors, Cortex-M and RISC-V: built by GCC, counted in QEMU."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil
import string
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tflite_tools.c import host_run
from tflite_tools.c.generate import Sources
from tflite_tools.c.host_run import CompilerError
from tflite_tools.schema.contents import Graph, Model

_HARNESS = pathlib.Path(__file__).parent / "board"
_FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror")
_LINK = ("-nostartfiles", "-Wl,--gc-sections", "-T", "device.ld")
_COMPILE_LIMIT = 300.0
_CALIBRATION = 2_000_000  # instructions, as in the harness
# 64 ns an instruction: every board's counter moves on by more than one tick meanwhile, or counts
# nanoseconds.
_ICOUNT = "shift=6"

# Prefix of a section -> field. Records with pointers are constants that the loader relocates.
_FIELDS = (
    (".text", "text"),
    (".rodata", "rodata"),
    (".data.rel.ro", "rodata"),
    (".data", "data"),
    (".bss", "bss"),
)


@dataclasses.dataclass(frozen=True)
class Tools:
    """What builds for an architecture and runs it.

    Attributes:
        prefix: of the names of GCC's programs.
        qemu: the emulator.
        packages: those of Debian, of compiler and emulator.
        startup: the file of the harness that is the architecture's own.
        flags: of the compiler.
        link: of the linker.
        library: a file of the C library and its Debian package; None for none.
    """

    prefix: str
    qemu: str
    packages: tuple[str, str]
    startup: str
    flags: tuple[str, ...]
    link: tuple[str, ...]
    library: tuple[str, str] | None = None

    @property
    def gcc(self) -> str:
        """The compiler."""
        return f"{self.prefix}gcc"

    def missing(self) -> list[str]:
        """The Debian packages that are needed and not installed."""
        compiler, emulator = self.packages
        packages = [] if shutil.which(self.gcc) else [compiler]
        if self.library is not None:
            file, package = self.library
            found = _printed(self.gcc, f"-print-file-name={file}") if not packages else ""
            packages += [] if pathlib.Path(found).is_absolute() else [package]
        return packages + ([] if shutil.which(self.qemu) else [emulator])


@dataclasses.dataclass(frozen=True)
class Board:
    """A machine that QEMU emulates.

    Attributes:
        tools: of its architecture.
        machine: its name in QEMU.
        code_start: first address of the memory for code and constants.
        ram_start: first address of the memory for variables.
        size: bytes of each of the two.
        uart: first address of its first serial port.
        flags: of the compiler, for its processor.
    """

    tools: Tools
    machine: str
    code_start: int
    ram_start: int
    size: int
    uart: int
    flags: tuple[str, ...]


_ARM = Tools(
    "arm-none-eabi-",
    "qemu-system-arm",
    ("gcc-arm-none-eabi", "qemu-system-arm"),
    "cortex_m.c",
    ("-mthumb",),
    ("--specs=nano.specs",),
    ("nano.specs", "libnewlib-arm-none-eabi"),
)
# Without a C library: the harness has the two functions of it that networks call.
_RISCV = Tools(
    "riscv64-unknown-elf-",
    "qemu-system-riscv32",
    ("gcc-riscv64-unknown-elf", "qemu-system-misc"),
    "riscv.c",
    (
        "-mabi=ilp32",
        "-msmall-data-limit=0",
        f"-I{_HARNESS / 'riscv'}",
        "-ffreestanding",
        "-fbuiltin",
    ),
    ("-nostdlib", "-lgcc", "-Wl,--no-warn-rwx-segments"),
)


def _cortex_m(
    name: str, machine: str, code: int, ram: int, size: int, uart: int, fpu: str = "soft"
) -> Board:
    flags = (f"-mcpu={name}", f"-mfloat-abi={fpu}")
    return Board(_ARM, machine, code, ram, size, uart, flags)


# Processor -> board.
CPUS: Mapping[str, Board] = {
    "cortex-m3": _cortex_m("cortex-m3", "mps2-an385", 0x00000000, 0x20000000, 2**22, 0x40004000),
    "cortex-m4": _cortex_m("cortex-m4", "mps2-an386", 0x00000000, 0x20000000, 2**22, 0x40004000),
    "cortex-m7": _cortex_m("cortex-m7", "mps2-an500", 0x00000000, 0x20000000, 2**22, 0x40004000),
    "cortex-m33": _cortex_m("cortex-m33", "mps2-an505", 0x10000000, 0x38000000, 2**22, 0x50200000),
    "cortex-m55": _cortex_m(
        "cortex-m55", "mps3-an547", 0x00000000, 0x20000000, 2**19, 0x59303000, "hard"
    ),
    "rv32imc": Board(
        _RISCV, "virt", 0x80000000, 0x81000000, 2**22, 0x10000000, ("-march=rv32imc_zicsr",)
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class DeviceRun:
    """What a processor made of samples.

    Attributes:
        outputs: one int8 array per output, samples along the first axis.
        instructions: of one inference, the median over the samples.
        steps: instructions of each operator in the last inference, if they were asked for.
    """

    outputs: tuple[np.ndarray, ...]
    instructions: int
    steps: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class FramesRun:
    """What a processor made of a sequence, frame by frame.

    Attributes:
        outputs: int8, (outputs, bytes of all outputs of the network).
        given: int64, the numbers of the frames with which they came.
        instructions: int64, of each frame; the first contains the reset.
    """

    outputs: np.ndarray
    given: np.ndarray
    instructions: np.ndarray


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes of a network's object file.

    Attributes:
        text: code.
        rodata: weights and other constants.
        data: initialized variables.
        bss: the arena.
    """

    text: int
    rodata: int
    data: int
    bss: int


def missing(cpus: Iterable[str] = CPUS) -> tuple[str, ...]:
    """The Debian packages that processors need and that are not installed."""
    found = [package for cpu in cpus for package in CPUS[cpu].tools.missing()]
    return tuple(dict.fromkeys(found))


def run(
    sources: Sources,
    model: Model,
    inputs: Sequence[np.ndarray],
    *,
    cpu: str = "cortex-m4",
    flags: Sequence[str] = ("-O2",),
    time_limit: float = 300.0,
    by_step: bool = False,
) -> DeviceRun:
    """Build a network for a processor and run it on samples.

    Args:
        sources: the C files.
        model: the file they were made from.
        inputs: one int8 array per input, samples along the first axis.
        cpu: a key of `CPUS`.
        flags: of the compiler.
        time_limit: seconds for all samples.
        by_step: count each operator too; the whole then contains that counting, some 30
            instructions an operator.

    Returns:
        Outputs, and instructions of the network's function alone: QEMU counts exactly, and 16 or so
        per 10 million are those of the counter's own wrap-around.

    Raises:
        ValueError: if the inputs do not fit, or there is no such processor.
        CompilerError: if a tool is missing, or refuses, or the network does not fit the board, or
            the program fails.
    """
    board = board_of(cpu)
    rows = host_run.stacked(model, inputs)
    if by_step:
        sources, count = _marked(sources)
        flags = (*flags, f"-DSTEPS={count}")
    header = _network_header(sources, model.main)
    ran = _harnessed(sources, board, flags, header, rows.tobytes(), time_limit)
    outputs = host_run.parted(model, ran.written, len(rows))
    steps = tuple(map(round, np.diff(ran.marks) - ran.empty))
    return DeviceRun(outputs, round(float(np.median(ran.counts))), steps)


def run_frames(
    sources: Sources,
    frames: np.ndarray,
    *,
    cpu: str = "cortex-m4",
    flags: Sequence[str] = ("-O2",),
    time_limit: float = 300.0,
) -> FramesRun:
    """The same of a network that takes frames.

    Args:
        sources: the C files, with a stream.
        frames: a sequence from its beginning, int8, (frames, bytes of the frames of all inputs).
        cpu: a key of `CPUS`.
        flags: of the compiler.
        time_limit: seconds for all frames.

    Raises:
        ValueError: if the network takes whole samples, or there is no such processor.
        CompilerError: as `run`.
    """
    if sources.stream is None:
        raise ValueError("The network takes whole samples.")
    board, header = board_of(cpu), _network_header(sources, sources.stream.graph)
    ran = _harnessed(sources, board, flags, header, frames.tobytes(), time_limit)
    rows = np.frombuffer(ran.written, np.int8).reshape(len(frames), -1)
    given = rows[:, -1] != 0
    return FramesRun(rows[given, :-1], np.flatnonzero(given), np.rint(ran.counts).astype(np.int64))


class _Harnessed(NamedTuple):
    """What the harness wrote: outputs, and instructions of each call, up to each step's mark, and
    of no step."""

    written: bytes
    counts: np.ndarray
    marks: np.ndarray
    empty: float


def _harnessed(
    sources: Sources,
    board: Board,
    flags: Sequence[str],
    header: str,
    inputs: bytes,
    time_limit: float,
) -> _Harnessed:
    """Build the harness with a network and run it on what its calls take one after the other."""
    with tempfile.TemporaryDirectory(prefix="tflite_tools_device_") as path:
        folder = pathlib.Path(path)
        beside = {"network.h": header}
        build(folder, sources, board, flags, program="harness.c", beside=beside)
        (folder / "inputs").write_bytes(inputs)
        command = [*emulator(board, serial="none"), "-semihosting-config"]
        _call([*command, "enable=on,target=native"], folder, time_limit)
        written, steps = (folder / "outputs").read_bytes(), folder / "steps"
        counts = np.fromfile(folder / "counts", "<u8").astype(np.float64)
        marks = np.fromfile(steps, "<u8").astype(np.float64) if steps.exists() else np.zeros(1)
    empty, calibration, *ticks = counts
    per_instruction = (calibration - empty) / _CALIBRATION
    called = (np.array(ticks) - empty) / per_instruction
    return _Harnessed(written, called, marks / per_instruction, float(empty / per_instruction))


def size(sources: Sources, *, cpu: str = "cortex-m4", flags: Sequence[str] = ("-O2",)) -> Sizes:
    """Bytes of the network compiled for a processor, without the program around it.

    Raises:
        ValueError: if there is no such processor.
        CompilerError: if a tool is missing or refuses.
    """
    board = board_of(cpu)
    with tempfile.TemporaryDirectory(prefix="tflite_tools_device_") as path:
        folder = pathlib.Path(path)
        _write(folder, sources.files)
        command = [*_compiler(board, flags), "-c", _unit(sources), "-o", "network.o"]
        _call(command, folder, _COMPILE_LIMIT)
        listing = [f"{board.tools.prefix}size", "-A", "network.o"]
        return parse(_call(listing, folder, _COMPILE_LIMIT))


def _marked(sources: Sources) -> tuple[Sources, int]:
    """The files with a call of the harness before each step and behind the last, and the steps."""
    name = _unit(sources)
    text, count = re.subn(
        r"(?m)^  (/\* [A-Z0-9_]+: )", r"  mark_step();\n  \1", sources.files[name]
    )
    text = re.sub(r"\}\n\Z", "  mark_step();\n}\n", text)
    files = {**sources.files, name: f"void mark_step(void);\n{text}"}
    return dataclasses.replace(sources, files=files), count


def parse(text: str) -> Sizes:
    """The sizes in what `size -A` prints."""
    found = dict.fromkeys(("text", "rodata", "data", "bss"), 0)
    for line in text.splitlines():
        name, *numbers = line.split() or [""]
        field = next((field for prefix, field in _FIELDS if name.startswith(prefix)), None)
        if field is not None:
            found[field] += int(numbers[0])
    return Sizes(**found)


def board_of(cpu: str) -> Board:
    """The board with a processor.

    Raises:
        ValueError: if there is none.
        CompilerError: if a tool for it is missing.
    """
    if cpu not in CPUS:
        raise ValueError(f"There is no board with a {cpu!r}: use {', '.join(CPUS)}.")
    lacking = missing([cpu])
    if lacking:
        raise CompilerError(f"Not installed: {', '.join(lacking)} (Debian packages).")
    return CPUS[cpu]


def _unit(sources: Sources) -> str:
    """The file with the network."""
    (name,) = (name for name in sources.files if name.endswith(".c") and name != "main.c")
    return name


def _write(folder: pathlib.Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def build(
    folder: pathlib.Path,
    sources: Sources,
    board: Board,
    flags: Sequence[str],
    *,
    program: str,
    beside: Mapping[str, str],
) -> None:
    """Build a program of the harness with a network, as program.elf.

    Args:
        folder: where everything is written.
        sources: the C files of the network.
        board: for which.
        flags: of the compiler.
        program: the file of the harness with `main`.
        beside: headers that it needs, by name.

    Raises:
        CompilerError: if the compiler refuses, or the network does not fit the board.
    """
    _write(folder, {**sources.files, **beside})
    shutil.copytree(_HARNESS, folder, dirs_exist_ok=True)
    script = string.Template((folder / "device.ld.in").read_text()).substitute(
        code_start=board.code_start,
        code_bytes=board.size,
        ram_start=board.ram_start,
        ram_bytes=board.size,
    )
    (folder / "device.ld").write_text(script)
    units = [_unit(sources), board.tools.startup, program]
    command = [*_compiler(board, flags), *units, *_LINK, *board.tools.link]
    _call([*command, "-o", "program.elf"], folder, _COMPILE_LIMIT)


def emulator(board: Board, *, serial: str) -> list[str]:
    """The command that runs program.elf, with the first serial port as QEMU calls it."""
    command = [board.tools.qemu, "-M", board.machine, "-display", "none", "-monitor", "none"]
    command += ["-serial", serial, "-icount", _ICOUNT, "-bios", "none"]
    return [*command, "-kernel", "program.elf"]


def _compiler(board: Board, flags: Sequence[str]) -> list[str]:
    """The compiler for a board, with its flags."""
    return [board.tools.gcc, *_FLAGS, *board.tools.flags, *board.flags, *flags]


def _network_header(sources: Sources, graph: Graph) -> str:
    """What the harness has to know of a network with the inputs and outputs of a graph."""
    name, places, sizes = _unit(sources).removesuffix(".c"), [], {}
    for kind, indices in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        sizes[kind] = 0
        for index in indices:
            places.append(f"{kind} + {sizes[kind]}")
            sizes[kind] += int(np.prod(graph.tensors[index].shape))
    if sources.stream is not None:  # with a byte that tells whether there are outputs
        return (
            f'#include "{name}.h"\n'
            f"static {name}_state state;\n"
            "static int started;\n"
            f"#define INPUT_BYTES {sizes['inputs']}\n"
            f"#define OUTPUT_BYTES {sizes['outputs'] + 1}\n"
            f"#define RUN_NETWORK if (!started++) {name}_reset(&state); "
            f"outputs[OUTPUT_BYTES - 1] = (int8_t){name}_push(&state, {', '.join(places)})\n"
        )
    return (
        f'#include "{name}.h"\n'
        f"#define INPUT_BYTES {sizes['inputs']}\n"
        f"#define OUTPUT_BYTES {sizes['outputs']}\n"
        f"#define RUN_NETWORK {name}_run({', '.join(places)})\n"
    )


def _printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _call(command: Sequence[str], folder: pathlib.Path, time_limit: float) -> str:
    """The output of a command; a failure is an error with its last words."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"{command[0]} did not finish in {time_limit:g} seconds."
        raise CompilerError(message) from error
    if "overflowed by" in done.stderr:
        raise CompilerError("The network does not fit the emulated board's memory.")
    if done.returncode != 0:
        text = done.stderr.strip()[:2000]
        raise CompilerError(f"{command[0]} failed with exit code {done.returncode}:\n{text}")
    return done.stdout
