"""The Ethos-U compiler: what it makes of the canonical int8 file, and whether all of it is on the
NPU.

Vela compresses weights of few levels to about their bits, so the int8 file is its best input: INT4
tensors crash it and DECODE operators stop it.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from tflite_tools.checks import pairing
from tflite_tools.schema import contents as models
from tflite_tools.schema.contents import Model
from tflite_tools.system import files

ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
DEFAULT_ACCELERATOR = "ethos-u55-128"
TIME_LIMIT = 600.0
_NPU_OP = "CUSTOM:ethos-u"
MISSING = "Vela, the Ethos-U compiler, is not installed: pip install ethos-u-vela"


@dataclasses.dataclass(frozen=True, eq=False)
class Compiled:
    """A file for an Ethos-U.

    Attributes:
        model: the file.
        cpu_ops: operators that are left to the CPU, by name and output; none if all are on the NPU.
        weight_bytes: compressed weights, with the biases and scales Vela packs among them.
        weights: how many weights the layers have.
        sram_bytes: working memory on the device.
        flash_bytes: what the network takes in flash.
    """

    model: Model
    cpu_ops: tuple[str, ...]
    weight_bytes: int
    weights: int
    sram_bytes: int
    flash_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Compressed bits a weight."""
        return 8 * self.weight_bytes / max(self.weights, 1)


def find() -> str | None:
    """Vela's program: on the search path, or beside this Python. None if it is not installed."""
    beside = pathlib.Path(sys.executable).parent / "vela"
    return shutil.which("vela") or (str(beside) if os.access(beside, os.X_OK) else None)


def compile_model(
    model: Model,
    *,
    accelerator: str = DEFAULT_ACCELERATOR,
    vela: str | None = None,
    time_limit: float = TIME_LIMIT,
) -> Compiled:
    """Compile the canonical file.

    Args:
        model: the int8 file.
        accelerator: one of `ACCELERATORS`.
        vela: path of the program; None looks for it.
        time_limit: seconds.

    Raises:
        ValueError: if the file has INT4 or decoded weights.
        RuntimeError: if Vela is missing, or refuses the file.
    """
    if accelerator not in ACCELERATORS:
        raise ValueError(f"accelerator must be one of {', '.join(ACCELERATORS)}.")
    weights = _weights(model)
    program = vela or find()
    if program is None:
        raise RuntimeError(MISSING)
    with tempfile.TemporaryDirectory(prefix="tflite_tools_") as path:
        folder = pathlib.Path(path)
        (folder / "model.tflite").write_bytes(model.data)
        _run(program, folder, accelerator, time_limit)
        made = models.load(files.read(folder / "out" / "model_vela.tflite"))
        summary = _summary(folder / "out")
    left = [op for op in made.main.ops if op.name != _NPU_OP]
    return Compiled(
        model=made,
        cpu_ops=tuple(f"{op.name} {pairing.label(made.main, op)}" for op in left),
        weight_bytes=int(float(summary["total_npu_encoded_weights"])),
        weights=weights,
        sram_bytes=int(1024 * float(summary["sram_memory_used"])),
        flash_bytes=int(1024 * float(summary["off_chip_flash_memory_used"])),
    )


def _weights(model: Model) -> int:
    """How many weights there are.

    Raises:
        ValueError: naming the tensor, if weights are stored in a way that Vela cannot take.
    """
    for entry in model.main.encoded:
        name = model.main.tensors[entry.indices].name
        raise ValueError(f"{name}: Vela cannot take decoded weights; give it the int8 file.")
    count = 0
    for op in model.main.ops:
        if op.name not in pairing.KERNEL_OPS:
            continue
        kernel = pairing.kernel(model.main, op)
        if kernel.storage != "INT8":
            raise ValueError(
                f"{kernel.name}: Vela crashes on {kernel.storage} weights; give it the int8 file."
            )
        count += kernel.weights.size
    return count


def _run(program: str, folder: pathlib.Path, accelerator: str, time_limit: float) -> None:
    command = [program, str(folder / "model.tflite"), "--output-dir", str(folder / "out")]
    try:
        done = subprocess.run(
            [*command, "--accelerator-config", accelerator],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"Vela did not finish within {time_limit:g} seconds.") from error
    except OSError as error:
        raise RuntimeError(f"Vela cannot be started: {error.strerror}.") from error
    if done.returncode < 0:
        raise RuntimeError(f"Vela crashed on the file ({signal.Signals(-done.returncode).name}).")
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        raise RuntimeError(f"Vela cannot compile the file: {reason}")


def _summary(folder: pathlib.Path) -> dict[str, str]:
    """The one row of Vela's table of figures.

    Raises:
        RuntimeError: if there is none, or it lacks what is read from it.
    """
    wanted = {"total_npu_encoded_weights", "sram_memory_used", "off_chip_flash_memory_used"}
    for path in folder.glob("*_summary_*.csv"):
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        if rows and wanted <= rows[0].keys():
            return rows[0]
    raise RuntimeError("Vela has written no summary that can be read (5.2 does).")
