"""The text of a network that takes a sequence frame by frame."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from tflite_tools.c.lowering import Step
from tflite_tools.c.memory_map import Place
from tflite_tools.c.source_text import Text, plain
from tflite_tools.c.streaming import Clock, Kept, Stream, View
from tflite_tools.schema.contents import Op

MARK = "/* Takes a sequence frame by frame. */"
_ALWAYS = Clock()


def places(stream: Stream) -> dict[int, Place]:
    """Where kept rows lie in the state; rows that are copied out of a ring have no place there."""
    found: dict[int, Place] = {}
    for kept in stream.kept.values():
        found[kept.memory] = ("state", kept.offset)
        for view in kept.views if not kept.ring else ():
            oldest = kept.count - view.lag - view.taps
            found[view.tensor] = ("state", kept.offset + oldest * kept.size)
    return found


def steps_of(stream: Stream, steps: Mapping[int, Step]) -> Iterator[tuple[Step, Clock]]:
    """All steps at a frame with their clocks: those of the operators, by number, and those that
    keep rows."""
    rings = [kept.tensor for kept in stream.kept.values() if kept.ring]
    for index in stream.graph.inputs:
        yield from _keeping(stream, rings, index)
    for op in stream.graph.ops:
        clock = stream.clocks[op.outputs[0]]
        for kept in stream.kept.values():
            for view in kept.views if kept.ring else ():
                if view.tensor in op.inputs:
                    yield _taking(stream, rings, op, kept, view), clock
        yield steps[op.index], clock
        yield from _keeping(stream, rings, op.outputs[0])


def _keeping(stream: Stream, rings: Sequence[int], index: int) -> Iterator[tuple[Step, Clock]]:
    kept = stream.kept.get(index)
    if kept is None:
        return
    own, row = f"{{t{kept.memory}}}", f"{{t{index}}}"
    if kept.ring:
        next_ = f"&state->next[{rings.index(index)}]"
        call = f"tfb_ring_in({own}, {next_}, {kept.count}, {kept.size}, {row});"
    else:
        call = f"tfb_shift_in({own}, {kept.count}, {kept.size}, {row});"
    name = plain(stream.graph.tensors[index].name)
    title = f"Kept: {kept.count} rows of {name}"
    yield Step(call, (index,), kept.memory, title=title), stream.clocks[index]


def _taking(stream: Stream, rings: Sequence[int], op: Op, kept: Kept, view: View) -> Step:
    place = f"state->next[{rings.index(kept.tensor)}]"
    numbers = f"{kept.count}, {kept.size}, {view.taps}, {view.step}, {view.lag}"
    call = f"tfb_ring_out({{t{kept.memory}}}, {place}, {numbers}, {{t{view.tensor}}});"
    name = plain(stream.graph.tensors[op.outputs[0]].name)
    return Step(call, (kept.memory,), view.tensor, title=f"What {name} sees")


@dataclasses.dataclass(frozen=True)
class StreamText(Text):
    """A network frame by frame, to be written.

    Attributes:
        stream: what is computed and kept.
        clocks: of the steps.
    """

    stream: Stream | None = None
    clocks: Sequence[Clock] = ()

    @property
    def _stream(self) -> Stream:
        if self.stream is None:
            raise ValueError("There is no stream to write.")
        return self.stream

    @property
    def _rings(self) -> int:
        return sum(kept.ring for kept in self._stream.kept.values())

    @property
    def _counts(self) -> tuple[int, int]:
        """The frame from which on all clocks have begun, and their period."""
        clocks = [*self.clocks, self._stream.output]
        every = math.lcm(*(clock.every for clock in clocks))
        return max(clock.begin for clock in clocks), every

    def _calling(self) -> list[str]:
        name, output = self.name, self._stream.output
        often = "each frame" if output.every == 1 else f"every {output.every} frames"
        return [
            " *",
            f" * A sequence is taken frame by frame. {name}_reset puts a state at its beginning;",
            f" * {name}_push takes the next frame and returns 1 if it has written outputs, else 0.",
            f" * The first ones come with frame {output.begin + 1}, then some with {often}.",
            " * Several sequences can be taken in turn, each with a state of its own.",
        ]  # fmt: skip

    def _sizes_of_state(self) -> list[str]:
        upper, stream = self.name.upper(), self._stream
        return [
            "/* Bytes of rows in a state; frames of the sequence that the network was made for, up",
            " * to the first outputs, and from then on from one to the next. */",
            f"#define {upper}_STATE_BYTES {stream.state_bytes}",
            f"#define {upper}_FRAMES {stream.frames}",
            f"#define {upper}_FIRST_OUTPUT {stream.output.begin + 1}",
            f"#define {upper}_OUTPUT_EVERY {stream.output.every}",
        ]

    def _declarations(self) -> list[str]:
        upper, rings = self.name.upper(), self._rings
        rows = [
            "  union {",
            "    int32_t words[" + f"{upper}_STATE_BYTES / 4];",
            f"    int8_t bytes[{upper}_STATE_BYTES];",
            "  } rows;",
        ]
        return [
            "/* What is kept of a sequence. */",
            "typedef struct {",
            "  uint32_t frame;",
            *([f"  uint16_t next[{rings}];"] if rings else []),
            *(rows if self._stream.state_bytes else []),
            f"}} {self.name}_state;",
            "",
            f"void {self.name}_reset({self.name}_state *state);",
            f"int {self.name}_push({self.name}_state *state, {self._parameters()});",
        ]

    def _functions(self) -> list[str]:
        stream, (settled, every) = self._stream, self._counts
        last = settled + every - 1  # the count goes on from here at `settled`
        counted = [f"  state->frame = frame < {last} ? frame + 1 : {settled};"] if last else []
        read = "  const uint32_t frame = state->frame;" if last else "  (void)state;"
        return [
            MARK,
            f"void {self.name}_reset({self.name}_state *state) {{",
            "  state->frame = 0;",
            *(["  memset(state->next, 0, sizeof state->next);"] if self._rings else []),
            *(
                f"  memset(state->rows.bytes + {kept.offset}, {kept.fill}, "
                f"{kept.count * kept.size});"
                for kept in stream.kept.values()
            ),
            "}",
            "",
            f"int {self.name}_push({self.name}_state *state, {self._parameters()}) {{",
            read,
            *self._statements(),
            *counted,
            f"  return {_due(stream.output)};",
            "}",
        ]

    def _statements(self) -> list[str]:
        """Steps, those of one clock behind each other in one block."""
        groups: list[tuple[Clock, list[str]]] = []
        found = [(clock, self._step(number)) for number, clock in enumerate(self.clocks)]
        for clock, lines in [*found, (self._stream.output, self._copies())]:
            if lines and groups and _due(groups[-1][0]) == _due(clock):
                groups[-1][1].extend(lines)
            elif lines:
                groups.append((clock, list(lines)))
        made = []
        for clock, lines in groups:
            if _due(clock) == _due(_ALWAYS):
                made += lines
                continue
            inner = (f"  {line}" for text in lines for line in text.split("\n"))
            made += [f"  if ({_due(clock)}) {{", *inner, "  }"]
        return made

    def example(self) -> str:
        """A program that takes frames from standard input and writes outputs."""
        inputs, outputs = (self._sizes(kind) for kind in ("INPUT", "OUTPUT"))
        read = (f"fread(input{k}, 1, sizeof input{k}, stdin)" for k in range(1, len(inputs)))
        return "\n".join([
            f"/* Example for {self.name}, generated by tflite_tools; copy it to change it.",
            " *",
            " * Reads the frames of a sequence from standard input, the stored int8 values of all",
            " * inputs one behind the other, and writes outputs in the same way when they come.",
            " */",
            "#include <stdio.h>",
            "",
            f'#include "{self.name}.h"',
            "",
            f"static {self.name}_state state;",
            *(f"static int8_t input{k}[{size}];" for k, size in enumerate(inputs)),
            *(f"static int8_t output{k}[{size}];" for k, size in enumerate(outputs)),
            "",
            "int main(void) {",
            f"  {self.name}_reset(&state);",
            "  for (;;) {",
            "    size_t got = fread(input0, 1, sizeof input0, stdin);",
            "    if (got != sizeof input0) return got != 0 || ferror(stdin) != 0;",
            *(f"    if ({text} != sizeof input{k}) return 1;" for k, text in enumerate(read, 1)),
            f"    if (!{self.name}_push(&state, {', '.join(self._names())})) continue;",
            *(f"    fwrite(output{k}, 1, sizeof output{k}, stdout);" for k in range(len(outputs))),
            "    if (fflush(stdout) != 0) return 1;",
            "  }",
            "}",
            "",
        ])  # fmt: skip


def _due(clock: Clock) -> str:
    """Whether a clock's row is made at a frame, in C."""
    late = f"frame >= {clock.begin}" if clock.begin else ""
    if clock.every == 1:
        return late or "1"
    since = f"(frame - {clock.begin})" if clock.begin else "frame"
    turn = f"{since} % {clock.every} == 0"
    return f"{late} && {turn}" if late else turn
