"""The C of networks that take frames: its interface, and a count that never overflows."""

import pathlib
import re
import subprocess

import pytest
import sequence_nets

from tflite_tools.c import generate, host_run

GUIDE = pathlib.Path(__file__).parents[3] / "docs" / "guides" / "streaming.md"
AROUND = """
#include <stdio.h>
static int frames;
static int next_frame(signed char *frame) {
  for (int i = 0; i < 3; i++) frame[i] = (signed char)(frames * i);
  return frames++ < 30;
}
static void heard(int best, int score) { printf("%d %d\\n", best, score); }
@
int main(void) { listen(); return 0; }
"""


@pytest.fixture(scope="module")
def strided():
    return generate.generate(sequence_nets.strided(), name="net", streaming=True)


def test_the_header_tells_how_to_call_it(strided):
    header = strided.files["net.h"]
    for line in (
        "#define NET_FRAMES 25",
        "#define NET_FIRST_OUTPUT 19",
        "#define NET_OUTPUT_EVERY 4",
        "#define NET_INPUT_0_SIZE 3",
        "#define NET_OUTPUT_0_SIZE 5",
        f"#define NET_STATE_BYTES {strided.stream.state_bytes}",
        "void net_reset(net_state *state);",
        "int net_push(net_state *state, const int8_t *input0, int8_t *output0);",
    ):
        assert line in header
    assert "net_run" not in "".join(strided.files.values())
    assert "tfb_keep" not in strided.files[generate.RUNTIME_HEADER]


def test_the_count_of_frames_goes_round(strided):
    """Behind the first output it only matters which frame of a period it is."""
    found = re.search(r"frame = frame < (\d+) \? frame \+ 1 : (\d+);", strided.files["net.c"])
    last, settled = map(int, found.groups())
    begin, every = strided.stream.output.begin, strided.stream.output.every
    assert (begin, every, last, settled) == (18, 4, 21, 18)
    count, due = 0, []
    for frame in range(100):
        due.append(count >= begin and (count - begin) % every == 0)
        assert due[-1] == (frame >= begin and (frame - begin) % every == 0)
        count = count + 1 if count < last else settled


def test_kept_rows(strided):
    """Rings for dilated windows, shifted rows for others, nothing for single rows."""
    stream = strided.stream
    rows = {stream.graph.tensors[index].name: kept for index, kept in stream.kept.items()}
    assert sorted((kept.count, kept.size, kept.ring) for kept in rows.values()) == [
        (2, 5, False),
        (3, 3, False),
        (5, 5, True),
    ]
    assert strided.files["net.c"].count("tfb_ring_out(") == 1
    single = sequence_nets.SequenceMaker()
    single.conv(taps=1)
    made = generate.generate(single.file(), name="net", streaming=True)
    assert made.stream.state_bytes == 0
    assert "(void)state;" in made.files["net.c"]
    assert "rows;" not in made.files["net.h"]


def test_the_loop_of_the_guide(needs_compiler, tmp_path):
    made = generate.generate(sequence_nets.window(), name="kws", streaming=True)
    (loop,) = re.findall(r"```c\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    files = {**made.files, "main.c": AROUND.replace("@", loop)}
    program = host_run.compile_to(tmp_path, files)
    done = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60)
    assert len(done.stdout.splitlines()) == len(range(made.stream.output.begin, 30, 2))
