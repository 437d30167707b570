"""A progress bar for work that takes long; on a terminal only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

# Takes the share of the work that is done, 0 to 1 or None if nobody knows, and what is being done.
Advance: TypeAlias = Callable[[float | None, str], None]
Item = TypeVar("Item")


def quietly(share: float | None, text: str) -> None:
    """Progress that nobody is to see."""


def counted(items: Iterable[Item], advance: Advance, text: str) -> Iterator[Item]:
    """The items, each told of with its number, counted from 1, as "<text> <number>"."""
    for number, item in enumerate(items, 1):
        advance(None, f"{text} {number}")
        yield item


@contextlib.contextmanager
def progress(*, enabled: bool = True) -> Iterator[Advance]:
    """A bar on stderr, which is gone when the work is done; none in logs and pipes.

    Where the native log is hidden, the bar has to begin after that (`quiet`).

    Args:
        enabled: False for no bar.
    """
    if not enabled or not sys.stderr.isatty():
        yield quietly
        return
    columns = BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("", total=None)

        def advance(share: float | None, text: str) -> None:
            total = None if share is None else 1.0
            bar.update(task, total=total, completed=share or 0.0, description=escape(text))

        yield advance
