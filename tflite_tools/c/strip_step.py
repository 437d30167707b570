"""Operators that are run in turn over strips of rows, as one step.

Between them only the rows that are still needed are kept, so a chain of operators takes the memory
of some rows in place of whole maps. No row is computed twice. What it costs: weights are decoded
anew for every strip.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tflite_tools.c.arena import aligned
from tflite_tools.c.lowering import Rows, Step, Window
from tflite_tools.schema.contents import Graph


class Part(NamedTuple):
    """What an operator does in a strip: the rows of its output from `begin` on and before `end`,
    which see the rows of its input from `first` on and before `seen`."""

    first: int
    seen: int
    begin: int
    end: int


def strips(windows: Sequence[Window], height: int) -> Iterator[list[Part]]:
    """The parts of each strip, of operators of which each sees what the one before it makes.

    Args:
        windows: theirs.
        height: rows that the last one makes in a strip.
    """
    made = [0] * len(windows)
    while made[-1] < windows[-1].rows_out:
        ends = [min(made[-1] + height, windows[-1].rows_out)]
        for window in reversed(windows[1:]):
            ends.insert(0, window.end(ends[0]))
        there = [windows[0].rows_in, *ends]
        yield [
            Part(min(window.first(begin), seen), seen, begin, end)
            for window, seen, begin, end in zip(windows, there, made, ends, strict=False)
        ]
        made = ends


def cost(graph: Graph, step: Step, units: int, count: int = 1) -> float:
    """About how many instructions a step takes besides its products: in each of `count` strips it
    prepares its filters, in blocks of so many `units`, and for each block its inputs.

    The factors are rough. They only have to tell which of two plans is the quicker one.
    """
    shape = graph.tensors[step.writes].shape
    if step.growth is None:
        return count * math.prod(shape[2:])
    taps, blocks = step.growth.unit / 4, -(-step.growth.most // units)
    return taps * (2 * count * step.growth.most + 0.6 * blocks * math.prod(shape[1:-1]))


@dataclasses.dataclass(frozen=True)
class Chain:
    """Steps of which each reads what the one before it writes, and of other tensors the same rows.

    Attributes:
        graph: their tensors.
        steps: in order; all have `rows`.
        height: rows of the last one's output that are made at a time.
        room: bytes of scratch memory that steps get at least; some are quicker with more.
    """

    graph: Graph
    steps: Sequence[Step]
    height: int
    room: int = 0

    @property
    def most_room(self) -> int:
        """Bytes of `room` beyond which nothing gets better."""
        return max(
            step.scratch + (step.growth.most - step.growth.least) * step.growth.unit
            if step.growth
            else 0
            for step in self.steps
        )

    @property
    def cost(self) -> float:
        """About how many instructions filters and their inputs take: filters are decoded for every
        strip."""
        count = -(-self._rows()[-1].window.rows_out // self.height)
        return sum(cost(self.graph, step, self._units(step), count) for step in self.steps)

    @functools.cached_property
    def step(self) -> Step | None:
        """All of them as one step; None if in some strip one would see no row."""
        parts = list(strips([rows.window for rows in self._rows()], self.height))
        if any(
            part.begin < part.end and part.first >= part.seen for strip in parts for part in strip
        ):
            return None
        columns = list(zip(*parts, strict=True))
        places, size = [], 0
        for step, own, behind in zip(self.steps, columns, columns[1:], strict=False):
            places.append(size)
            # Rows that are made lie behind those that are kept, needed or not.
            kept = max(
                part.end - min(part.begin, needed.first)
                for part, needed in zip(own, behind, strict=True)
            )
            size += aligned(kept * self._row(step.writes))
        scratch = max(self.room, *(
            rows.scratch(max(part.end - part.begin for part in own))
            for rows, own in zip(self._rows(), columns, strict=True)
        ))  # fmt: skip
        reads = self._reads()
        free = self._free(parts)
        if free is not None:
            reads = (free, *(index for index in reads if index != free))
        title = "; ".join(step.title for step in self.steps)
        rows_text = "1 row" if self.height == 1 else f"{self.height} rows"
        return Step(
            self._text(places, size),
            reads,
            self.steps[-1].writes,
            scratch=size + scratch,
            in_place=free is not None,
            title=f"{rows_text} at a time: {title}",
        )

    @property
    def _source(self) -> int:
        """The tensor that the first step walks along."""
        return self.steps[0].reads[0]

    def _units(self, step: Step) -> int:
        """How many units the scratch memory of a step with a growth holds."""
        if step.growth is None:
            return 0
        more = max(0, self.room - step.scratch) // step.growth.unit
        return min(step.growth.most, step.growth.least + more)

    def _rows(self) -> list[Rows]:
        return [step.rows for step in self.steps if step.rows is not None]

    def _row(self, tensor: int) -> int:
        """Bytes of a row."""
        return math.prod(self.graph.tensors[tensor].shape[2:])

    def _reads(self) -> tuple[int, ...]:
        """What is read from outside."""
        made = {step.writes for step in self.steps}
        found = (index for step in self.steps for index in step.reads if index not in made)
        return tuple(dict.fromkeys(found))

    def _free(self, parts: Sequence[Sequence[Part]]) -> int | None:
        """The tensor from outside whose memory the output may take, strip by strip; None if none.

        That is a tensor that only the last step reads, row by row. Or it is the source, if what is
        written of the output never reaches a row that is still to be read.
        """
        source, target = self._source, self.steps[-1].writes
        before = {index for step in self.steps[:-1] for index in step.reads}
        outside = set(self._reads()) - before
        own = [index for index in self.steps[-1].reads if index in outside]
        if own:
            return own[0]
        if self._bytes(target) > self._bytes(source):
            return None
        for now, next_ in itertools.pairwise(parts):
            read = [next_[0].first]
            read += [
                part.begin
                for step, part in zip(self.steps[1:], next_[1:], strict=True)
                if source in step.reads
            ]
            if now[-1].end * self._row(target) > min(read) * self._row(source):
                return None
        return source

    def _bytes(self, tensor: int) -> int:
        return math.prod(self.graph.tensors[tensor].shape)

    def _text(self, places: Sequence[int], size: int) -> str:
        """The loop over the strips. `m0.end` rows of the first map are made, up to row `e0`.
        Places of the step's text stand between @ until the braces of C are doubled."""
        windows, last = [rows.window for rows in self._rows()], len(self.steps) - 1
        at = [f"@scratch@ + {place}" for place in places] + [f"@t{self.steps[-1].writes}@"]
        lines = ["{"]
        for number, step in enumerate(self.steps):
            lines.append(f"  tfb_map m{number} = {{{at[number]}, {self._row(step.writes)}, 0, 0}};")
        rows_out = windows[last].rows_out
        lines.append(f"  while (m{last}.end < {rows_out}) {{")
        lines.append(
            f"    const int32_t e{last} = tfb_min(m{last}.end + {self.height}, {rows_out});"
        )
        for number in range(last, 0, -1):
            end = _end(windows[number], f"e{number}")
            lines.append(f"    const int32_t e{number - 1} = {end};")
        for number in range(last + 1):
            lines += self._part(number, f"@scratch@ + {size}")
        text = "\n  ".join((*lines, "  }", "}"))
        return re.sub("@(.*?)@", r"{\1}", text.replace("{", "{{").replace("}", "}}"))

    def _part(self, number: int, scratch: str) -> list[str]:
        """One operator's part of a strip."""
        step, rows = self.steps[number], self._rows()
        lines = []
        if number < len(self.steps) - 1:
            behind = _first(rows[number + 1].window, f"m{number + 1}.end")
            lines.append(f"    tfb_keep(&m{number}, {behind});")
        places = {f"t{step.writes}": f"tfb_row(&m{number}, begin)"}
        for index in step.reads:
            inside = number > 0 and index == self.steps[number - 1].writes
            outside = f"@t{index}@ + first * {self._row(index)}"
            places[f"t{index}"] = f"tfb_row(&m{number - 1}, first)" if inside else outside
        there = f"m{number - 1}.end" if number else f"{rows[0].window.rows_in}"
        call = rows[number].call.format(
            scratch=scratch,
            units=self._units(step),
            left=f"{there} - first",
            rows="(end - begin)",
            **places,
        )
        return [
            *lines,
            f"    if (m{number}.end < e{number}) {{",
            f"      const int32_t begin = m{number}.end, end = e{number};",
            f"      const int32_t first = {_first(rows[number].window, 'begin')};",
            *(f"      {line}" for line in call.split("\n")),
            f"      m{number}.end = end;",
            "    }",
        ]


def _first(window: Window, row: str) -> str:
    """`Window.first` in C."""
    start = row if window.stride == 1 else f"{row} * {window.stride}"
    return start if window.pad == 0 else f"tfb_max({start} - {window.pad}, 0)"


def _end(window: Window, end: str) -> str:
    """`Window.end` in C."""
    if (window.stride, window.pad, window.reach) == (1, 0, 1):
        return end
    more = window.reach - window.pad - window.stride
    last = end if window.stride == 1 else f"{end} * {window.stride}"
    more_text = f" + {more}" if more > 0 else f" - {-more}" if more else ""
    return f"tfb_min({last}{more_text}, {window.rows_in})"
