"""What somebody may have meant who wrote a word that there is not."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest of the known words, or all of them."""
    words = list(known)
    close = difflib.get_close_matches(word, words, n=1)
    return f": did you mean {close[0]!r}?" if close else f" (there are {', '.join(words)})"


def similar_file(path: str) -> str | None:
    """The path of a file beside a missing one that is named almost like it; None if none is."""
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or os.curdir)
    except OSError:
        return None
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
    return os.path.join(folder, close[0]) if close else None
