"""Runs the notebooks from their texts and writes them with what they print and draw.

    python examples/notebooks/execute.py [NAME ...]

A notebook is a text (NAME.py, in jupytext's percent format), which is what one edits, and beside it
NAME.ipynb, which is made here. Each runs in a folder of its own, on the CPU. For `resnet8_16kb` set
TFBINREG_DATA to a folder with cifar10.npz and mlperf_tiny_resnet8.h5.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.py") if path != pathlib.Path(__file__)))
SECONDS = 600  # of a cell
# What TensorFlow's C++ code says before it can be told to be quiet.
_LOG = re.compile(r"^(WARNING: All log messages|[IWE]\d{4} )")


def executed(name: str) -> Any:
    """The notebook with outputs; nbclient's CellExecutionError if a cell fails."""
    notebook = jupytext.read(FOLDER / f"{name}.py", fmt="py:percent")
    # The commands of the environment that this runs in.
    commands = str(pathlib.Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join((commands, os.environ["PATH"]))
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook, timeout=SECONDS, resources=resources, coalesce_streams=True
        )
        client.execute()
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # else drawn anew each time
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_without_log, cell.outputs) if output]
    return notebook


def _without_log(output: Any) -> Any:
    """An output without what `_LOG` matches; None if nothing is left."""
    if output.output_type != "stream" or output.name != "stderr":
        return output
    kept = [line for line in output.text.splitlines(keepends=True) if not _LOG.match(line)]
    output.text = "".join(kept)
    return output if output.text.strip() else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"there is no notebook {', '.join(unknown)}: take {', '.join(NAMES)}")
    for name in options.names or NAMES:
        print(f"{name} ...", flush=True)
        nbformat.write(executed(name), FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    main()
