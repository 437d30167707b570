"""python -m examples.study: run, list and report studies."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.study.folders import CACHE, RESULTS, Folders, is_done, read_result
from examples.study.read import read_study
from examples.study.table import Row


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = _command(commands, "run", "make the unfinished runs of a study", run_study)
    _add_folders(run)
    run.add_argument("--jobs", type=int, default=1, help="parallel runs, one core each")
    run.add_argument("--only", default="", help="regular expression to search for in run keys")
    run.add_argument("--pause_file", type=Path, help="while it exists, runs are stopped")
    row = _command(commands, "row", "make one run in this process, even if it is done", run_row)
    row.add_argument("key", help="as `list` shows it")
    _add_folders(row)
    row.add_argument("--end_with_parent", action="store_true", help=argparse.SUPPRESS)
    rows = _command(commands, "list", "show the runs of a study and which are done", list_rows)
    rows.add_argument("--results", type=Path, default=RESULTS)
    report = _command(commands, "report", "tables and pictures of the finished runs", report_study)
    report.add_argument("--results", type=Path, default=RESULTS)
    report.add_argument("--output", type=Path, help="folder for pictures (default: no pictures)")
    return parser.parse_args(arguments)


def _command(
    commands: Any, name: str, text: str, function: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("study", help="a name in examples/study/studies, or the path of a .json")
    command.set_defaults(function=function)
    return command


def _add_folders(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data_dir", type=Path, required=True, help="folder with cifar10.npz")
    command.add_argument("--results", type=Path, default=RESULTS)
    command.add_argument("--cache", type=Path, default=CACHE, help="checkpoints, final weights")


def _folders(options: argparse.Namespace) -> Folders:
    return Folders(data=options.data_dir, results=options.results, cache=options.cache)


def run_study(options: argparse.Namespace) -> int:
    """The float nets first, which the other runs start from."""
    study, folders = read_study(options.study), _folders(options)
    rows = [row for row in study.runs() if re.search(options.only, row.key)]
    starts = list({row.start.key: row.start for row in rows if row.start is not None}.values())
    failed = 0
    for stage in (starts, rows):
        failed += _run_stage([row for row in stage if not is_done(folders, row)], options)
        if failed:
            break
    return 1 if failed else 0


def _run_stage(rows: list[Row], options: argparse.Namespace) -> int:
    from examples.study.processes import run_all

    folders = _folders(options)
    by_key = {row.key: row for row in rows}
    spent: list[tuple[float, Row]] = []

    def finished(key: str, code: int) -> None:
        row = by_key.pop(key)
        result = read_result(folders, row) if code == 0 else None
        if result is not None:
            spent.append((result["card"]["cpu_seconds"], row))
        outcome = f"failed with {code}" if result is None else str(result["final"])
        print(f"{time.strftime('%H:%M:%S')} {key}: {outcome}", flush=True)
        print(_time_left(spent, list(by_key.values()), options.jobs), flush=True)

    commands = [(row.key, _worker(row, options)) for row in rows]
    return run_all(commands, options.jobs, options.pause_file, finished)


def _worker(row: Row, options: argparse.Namespace) -> list[str]:
    study = options.study
    if row.study != Path(study).stem:  # a start, from the study beside it
        study = str(Path(study).with_name(f"{row.study}.json")) if ".json" in study else row.study
    flags = [f"--{name}={getattr(options, name)}" for name in ("data_dir", "results", "cache")]
    command = [sys.executable, "-m", "examples.study", "row", study, row.key, *flags]
    return [*command, "--end_with_parent"]


def _time_left(spent: list[tuple[float, Row]], left: list[Row], jobs: int) -> str:
    """From what an epoch took so far, whatever the net."""
    if not spent or not left:
        return f"{len(left)} runs left"
    per_epoch = sum(seconds for seconds, _ in spent) / sum(row.arm.epochs for _, row in spent)
    hours = per_epoch * sum(row.arm.epochs for row in left) / jobs / 3600
    return f"{len(left)} runs left, about {hours:.1f} h"


def run_row(options: argparse.Namespace) -> int:
    """One run, alone."""
    from examples.study.processes import end_with_parent, locked

    if options.end_with_parent:
        end_with_parent()
    study, folders = read_study(options.study), _folders(options)
    row = study.find(options.key)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from examples.study import train
    from examples.study.data import read_data

    train.use_one_thread()
    with locked(folders.lock(row)):
        before = read_result(folders, row)
        result = train.run(row, folders, read_data(str(folders.data), row.rows))
    print(f"{row.key}: {result['final']}", flush=True)
    if before is not None:
        same = before["card"]["weights"] == result["card"]["weights"]
        print(f"{row.key}: weights {'as' if same else 'other than'} in the result before")
    return 0


def list_rows(options: argparse.Namespace) -> int:
    study = read_study(options.study)
    folders = Folders(data=Path(), results=options.results)
    for row in study.runs():
        done = read_result(folders, row) is not None
        print(f"{'done' if done else '-':5}{row.key}")
    return 0


def report_study(options: argparse.Namespace) -> int:
    from examples.study.report import report

    study = read_study(options.study)
    print(report(study, Folders(data=Path(), results=options.results)))
    if options.output is not None:
        from examples.study.pictures import draw

        draw(study, Folders(data=Path(), results=options.results), options.output)
    return 0


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options = parse()
    try:
        return options.function(options)
    except (ValueError, re.error) as error:
        print(f"examples.study: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
