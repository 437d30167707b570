"""The command `convert`: a trained model or its int8 file for a device, or bits for a budget."""

from __future__ import annotations

import argparse
import os
import pathlib
import shlex
import sys
import time

from tflite_tools.c import packages, source_folder
from tflite_tools.commands import given
from tflite_tools.commands.arguments import PROGRAM
from tflite_tools.commands.exit_codes import SUCCESS
from tflite_tools.formats import build
from tflite_tools.formats.build import Options
from tflite_tools.from_keras import convert as conversion
from tflite_tools.from_keras.convert import Finalized
from tflite_tools.from_keras.fit_flash import squeeze
from tflite_tools.reports import comparison_text, flash, report_text
from tflite_tools.reports.flash import Flash
from tflite_tools.schema.contents import Model
from tflite_tools.system import files
from tflite_tools.system.progress import Advance, progress
from tflite_tools.system.quiet import native_log_hidden

_NOT_FINALIZED = (
    "the model was not finalized: its batch normalization may lag behind the weights, which can "
    "cost many points at few bits. Call tfbinreg.finalize(model, data) before saving it, or give "
    "--finalize_data FILE"
)


def convert(arguments: argparse.Namespace) -> int:
    """Convert as requested, write and print.

    Returns:
        Exit code 0; failures raise ValueError or RuntimeError.
    """
    options = Options(
        format=arguments.format,
        target=arguments.target,
        slim=arguments.slim,
        split_convs=arguments.split_convs,
        accelerator=arguments.accelerator,
        package=arguments.package,
        ram_budget=arguments.ram_budget,
        streaming=arguments.streaming,
    )
    folder, name = options.format == "c", _identifier(arguments.output)
    given.check_paths(arguments)
    _check_output(arguments.output, folder=folder)
    (files.check_folder if folder else files.check_target)(arguments.output)
    files.check_apart(arguments.output, arguments.model, arguments.data, arguments.finalize_data)
    if folder:
        source_folder.check_replaceable(arguments.output, packages.paths(name, options.package))
    if arguments.flash_budget is not None:
        if arguments.finalize_data is not None:
            raise ValueError(
                "--finalize_data is for trained models, --flash_budget for float ones."
            )
        if options != Options():
            raise ValueError("--flash_budget writes the int8 file: convert that file afterwards.")
        return _squeeze(arguments)
    start = time.monotonic()
    with (
        native_log_hidden(enabled=not arguments.verbose),
        progress(enabled=not arguments.json) as advance,
    ):
        advance(None, f"reading {arguments.model}")
        canonical, finalized = _canonical(arguments, advance)
        advance(None, f"writing and comparing {options.format}")
        built = build.build(canonical, options, name=name)
    if folder:
        files.write_folder(arguments.output, built.files)
    else:
        files.write(arguments.output, built.files[""])
    figures = comparison_text.built_figures(arguments.output, options, canonical, built)
    figures["seconds"] = round(time.monotonic() - start, 2)
    figures["finalized"] = canonical.require_manifest().finalized
    reference = arguments.model
    if finalized is not None:
        reference = _saved_beside(arguments.output)
        files.write(reference, finalized.saved)
        figures["finalized_model"], figures["finalize"] = reference, finalized.report
    figures["check"] = _check_line(arguments, options, reference)
    if arguments.json:
        print(report_text.to_json(figures))
        return SUCCESS
    if finalized is not None:
        print(report_text.printable(finalized.report))
        print(f"{reference}: the finalized model")
    unfinalized = (_NOT_FINALIZED,) if figures["finalized"] is False else ()
    for line in (*built.warnings, *unfinalized):
        print(f"{PROGRAM}: warning: {report_text.printable(line)}", file=sys.stderr)
    comparison_text.print_built(figures, built, report_text.console())
    print(f"check it: {report_text.printable(figures['check'])}")
    return SUCCESS


def _canonical(arguments: argparse.Namespace, advance: Advance) -> tuple[Model, Finalized | None]:
    """The canonical file, and the model if it was finalized during conversion."""
    if arguments.finalize_data is None:
        file = conversion.canonical(
            arguments.model,
            input_type=arguments.input_type,
            output_type=arguments.output_type,
            input_shape=arguments.input_shape,
            notes=dict(arguments.card),
        )
        return file, None
    saved = _saved_beside(arguments.output)
    files.check_target(saved)
    files.check_apart(saved, arguments.output, arguments.model, arguments.finalize_data)
    arrays = files.read_arrays(arguments.finalize_data)
    finalized = conversion.finalized(
        arguments.model,
        arrays,
        input_type=arguments.input_type or conversion.INPUT_TYPES[0],
        output_type=arguments.output_type,
        notes=dict(arguments.card),
        advance=advance,
    )
    return finalized.file, finalized


def _saved_beside(output: str) -> str:
    """Where the finalized model is saved."""
    return f"{os.path.normpath(output)}.keras"


def _check_output(path: str, *, folder: bool) -> None:
    sources = (".c", ".h")
    if folder:
        given.check_output(path, kind="a folder of C", suffix="", wrong=(".tflite", *sources))
        return
    wrong = (".npy", ".npz", ".json", *sources)
    given.check_output(path, kind="a .tflite file", suffix=".tflite", wrong=wrong)


def _check_line(arguments: argparse.Namespace, options: Options, reference: str) -> str:
    """The command that checks the written file."""
    if options.target == "ethos-u":
        source = shlex.quote(reference)
        return (
            f"only an Ethos-U runs it; convert without --target and `{PROGRAM} verify` that file "
            f"with --reference {source}"
        )
    flag = "--canonical" if conversion.is_tflite(reference) else "--reference"
    output, model = shlex.quote(arguments.output), shlex.quote(reference)
    return f"{PROGRAM} verify {output} {flag} {model}"


def _identifier(output: str) -> str:
    """A name for C from the name of a file."""
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in pathlib.Path(output).stem)
    return name if name[:1].isalpha() else f"model_{name}"


def _squeeze(arguments: argparse.Namespace) -> int:
    recipe_path = _recipe_path(arguments)
    files.check_target(recipe_path)
    files.check_apart(recipe_path, arguments.output, arguments.model, arguments.data)
    arrays = files.read_arrays(arguments.data)
    with (
        native_log_hidden(enabled=not arguments.verbose),
        progress(enabled=not arguments.json) as advance,
    ):
        result = squeeze(
            arguments.model,
            arguments.flash_budget,
            arrays,
            granularity=arguments.flash_granularity or "layer",
            widths=arguments.flash_widths,
            advance=advance,
        )
    files.write(arguments.output, result.file.data)
    files.write(recipe_path, result.recipe.encode())
    check = f"{PROGRAM} verify {shlex.quote(arguments.output)}"
    if arguments.json:
        figures = {
            "output": arguments.output,
            "recipe": recipe_path,
            "budget": arguments.flash_budget,
            "packed_bytes": result.flash.total,
            "flash": result.flash,
            "not_counted": flash.NOT_COUNTED,
            "squeezed": result.squeezed,
            "before": result.before,
            "after": result.after,
            "labelled": result.labelled,
            "check": check,
        }
        print(report_text.to_json(figures))
        return SUCCESS
    print(result.table)
    for line in _flash_lines(result.flash, arguments.flash_budget):
        print(line)
    what = "accuracy" if result.labelled else "best class as the float model"
    print(f"{what}: {100 * result.before:.2f} % float, {100 * result.after:.2f} % untrained")
    squeezed = ", ".join(result.squeezed) or "none"
    print(f"squeezed below 8 bits: {report_text.printable(squeezed)}")
    train = f"{PROGRAM} quantize {shlex.quote(arguments.model)} --recipe {shlex.quote(recipe_path)}"
    print(f"{arguments.output}: not trained; train with {recipe_path}")
    print(f"train it: {report_text.printable(train)} --data TRAINING --output q.keras")
    print(f"check it: {report_text.printable(check)}")
    return SUCCESS


def _recipe_path(arguments: argparse.Namespace) -> str:
    """Where the recipe is written; the former flag must not replace what it seems to read."""
    if arguments.recipe is None:
        return str(arguments.recipe_output or f"{arguments.output}.json")
    if arguments.recipe_output is not None or os.path.exists(arguments.recipe):
        raise ValueError(
            "--recipe is not read: --flash_budget chooses the bits and writes a recipe. Say where "
            "with --recipe_output."
        )
    print(
        f"{PROGRAM}: warning: --recipe is now --recipe_output, which says that it is written",
        file=sys.stderr,
    )
    return str(arguments.recipe)


def _flash_lines(used: Flash, limit: int) -> list[str]:
    """What was counted, and what was not."""
    lines = [f"flash: {used.total} of {limit} bytes ({used.text()})"]
    if used.obstacle:
        lines.append(f"counted from the .tflite file: {report_text.printable(used.obstacle)}")
        return [*lines, "not counted: the runtime's code, operators and tensors of the file"]
    ram = f"{used.arena_bytes} bytes of RAM for activations"
    return [*lines, f"not counted: {flash.NOT_COUNTED}, {ram}"]
