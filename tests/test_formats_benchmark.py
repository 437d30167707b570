"""What benchmarks/formats.py measures and prints; nothing here is timed."""

import importlib
import json
from pathlib import Path

import pytest

import tfbinreg
from tflite_tools.c import host_run
from tflite_tools.formats import build
from tflite_tools.reports import bench
from tflite_tools.running import runtime
from tflite_tools.schema import flatbuffer
from tflite_tools.schema.contents import load, written

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _import_from_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def formats():
    return importlib.import_module("formats")


@pytest.fixture
def tables():
    return importlib.import_module("formats_tables")


@pytest.fixture
def rows():
    return importlib.import_module("rows")


@pytest.fixture(scope="module")
def canonical(trained_net):
    return load(tfbinreg.to_tflite(trained_net))


def row(**changes):
    """A row as `cell` makes it."""
    differences = {"codes": 0, "compared": 100, "different": 0}
    formats = {
        "int4": {
            "bytes": 300_000,
            "arena": 90,
            "canonical": {**differences, "different": 7},
            "own integers": differences,
            "alone_percent": 0.5,
        },
        "slim lut": {"bytes": 120_000, "arena": 95, "canonical": differences},
    }
    build = {"text": 3000, "rodata": 112_000, "data": 0, "bss": 5, "instructions": 1_020_000}
    made = {
        "net": "net",
        "setting": "W4A8",
        "weights": 400_000,
        "nominal": 200_000.0,
        "ideal": 210_000.0,
        "wrong_codes": 1,
        "formats": formats,
        "costs": {
            "bytes": 500_000,
            "latency_ms": None,
            "arena": 80,
            "c_arena": 60,
            "c_weights": 210_000,
            "c_constants": 8000,
            "builds": {"cortex-m4 -O2": build},
            "not_measured": {"C for x": "not installed"},
        },
        "c": {"edges": 12, "compared": 2_000_000, "different": 3},
        "convert": {"to_tflite": 0.4, "stock": 0.2, "stock without tracing": 0.1},
    }
    return {**made, **changes}


def test_formats_that_hold_the_bits(formats):
    assert list(formats.options_of(8)) == ["slim int8"]
    assert list(formats.options_of(5)) == ["slim int8", "lut", "slim lut"]
    assert len(formats.options_of(4)) == 5


def test_a_lost_code_is_counted(formats, canonical, edit_first_weight):
    same = formats.difference(canonical, canonical)
    assert (same["codes"], same["different"]) == (0, 0)
    assert same["compared"] > 0
    changed = formats.difference(canonical, edit_first_weight(canonical))
    assert changed["codes"] == 1
    assert 0 < changed["different"] <= changed["compared"]


@pytest.fixture
def edit_first_weight():
    def edited(file):
        container = flatbuffer.read(file.data)
        (graph,) = container.subgraphs
        tensor = graph.tensors[int(graph.operators[0].inputs[1])]
        values = flatbuffer.constant(container, tensor).copy()
        values.flat[0] = -values.flat[0] or 32
        flatbuffer.set_constant(container, tensor, values)
        return written(container)

    return edited


@pytest.mark.slow
def test_int4_is_compared_with_its_own_integers_too(formats, canonical):
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")
    found = formats.compared(canonical, build.Options(format="int4", target="tflm"))
    assert found["own integers"]["different"] == found["own integers"]["codes"] == 0
    assert found["alone_percent"] >= 0


@pytest.mark.slow
def test_c_is_compared_on_both_paths(formats, canonical, monkeypatch):
    if host_run.compiler() is None or not runtime.available(runtime.TFLM):
        pytest.skip("no C compiler, or no tflite_micro")
    monkeypatch.setattr(formats, "OUTPUTS", 2000)
    monkeypatch.setattr(formats, "_WHOLE", 2)
    found = formats.c_against_tflm(canonical)
    assert found["compared"] >= 2 * 2000
    assert found["different"] == 0
    assert found["edges"] == 8 * 8 * 3 + 3
    run = host_run.run
    monkeypatch.setattr(formats, "_PATHS", ((),))
    monkeypatch.setattr(
        host_run, "run", lambda *args, **options: tuple(x ^ 1 for x in run(*args, **options))
    )
    assert formats._c_pair(canonical, 2) == (2 * 3, 2 * 3)


def test_costs_need_the_c_of_this_computer(formats):
    found = bench.Benchmark(1, (), 16, None, {"C": "no manifest"})
    with pytest.raises(RuntimeError, match="no manifest"):
        formats.costs(found)


def test_costs_are_flat(formats):
    part = bench.Build("here", "-Os", 1, 2, 3, 4)
    found = bench.Benchmark(9, (), 16, bench.GeneratedC(5, 6, 7, (part,)), {})
    costs = json.loads(json.dumps(formats.costs(found)))
    assert costs["latency_ms"] is None
    assert costs["builds"]["here -Os"]["rodata"] == 2


def test_converting_takes_turns(trained_net, monkeypatch):
    times_of = importlib.import_module("formats_times")
    monkeypatch.setattr(times_of, "_ROUNDS", 1)
    times = times_of.convert_times(trained_net)
    assert 0 < times["stock without tracing"] < times["stock"]
    assert times["to_tflite"] > 0


def test_nets_are_kept(formats, trained_net, tmp_path, monkeypatch):
    calls = []

    def made(work):
        calls.append(work)
        return trained_net

    monkeypatch.setitem(formats.NETS, "tiny", made)
    folder = str(tmp_path / "nets")
    for _ in range(2):
        model = formats.quantized("tiny", "W2A8", "work", folder)
    assert calls == ["work"]
    assert model is not trained_net
    assert [path.name for path in (tmp_path / "nets").iterdir()] == ["tiny W2A8.keras"]
    formats.quantized("tiny", "W2A8", "work", None)
    assert len(calls) == 2


def test_rows_are_kept_and_gone_on_from(rows, tmp_path):
    path = str(tmp_path / "rows.json")
    assert rows.kept(path, ("net",)) == rows.kept(None, ("net",)) == {}
    rows.keep(path, [{"net": "a", "x": 1}, {"net": "b", "x": 2}])
    rows.keep(None, [{}])
    assert rows.kept(path, ("net",))["b",]["x"] == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_a_row_in_its_own_process(rows, tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text("import sys; print('noise'); print('{\"of\": \"' + sys.argv[2] + '\"}')")
    assert rows.in_own_process(str(script), ["net"], []) == {"of": "net"}
    script.write_text("raise SystemExit('too small')")
    assert rows.in_own_process(str(script), ["net"], []) is None
    assert "net: too small" in capsys.readouterr().err


def test_a_run_goes_on_and_fails_if_a_row_is_missing(formats, rows, tmp_path, capsys, monkeypatch):
    made = []

    def one(script, of, flags):
        made.append(tuple(of))
        inspected = {"net": of[0], "setting": of[1], "bytes": 4, "seconds": 0.1, "command": 0.2}
        return inspected if of[0] == "inspect" else None

    monkeypatch.setattr(rows, "in_own_process", one)
    path = str(tmp_path / "rows.json")
    rows.keep(path, [row(net="ResNet-8", setting="W4A8")])
    flags = ["--data_dir", "x", "--nets", "ResNet-8", "--json", path]
    assert formats.main([*flags, "--settings", "W4A8"]) == 0
    assert made == [formats.INSPECT]
    assert "ResNet-8 W4A8" in capsys.readouterr().out
    assert formats.main([*flags, "--settings", "W2A8"]) == 1
    assert made[-1] == ("ResNet-8", "W2A8")


def test_targets_count_for_large_nets_and_for_bits_that_are_stored(tables):
    assert tables.ratio(row(), "C", 218_000) == "1.09 / 1.04, met"
    assert tables.ratio(row(), "C", 230_000).endswith("missed")
    assert tables.ratio(row(), "slim int4", 250_000).endswith("missed")
    assert tables.ratio(row(nominal=100_000.0), "slim int4", 250_000) == "2.50 / 1.19"
    assert tables.ratio(row(weights=199_999), "C", 400_000) == "2.00 / 1.90"
    assert tables.ratio(row(), "slim lut", None) is None


def test_all_tables(tables):
    reference = row(setting="W8A8")
    reference["costs"]["builds"]["cortex-m4 -O2"] = {
        "text": 1,
        "rodata": 1,
        "instructions": 1_000_000,
    }
    inspected = {"net": "inspect", "setting": "", "bytes": 4, "seconds": 0.1, "command": 1.2}
    text = tables.markdown([row(), reference, inspected])
    for part in (
        "| net W4A8 | 400000 | 210000 | 500000 | – | 300000 | – | – | 120000 | 218000 |",
        "1.02 M | 1.020 |",
        "| net W4A8 | 1 | 3 of 2000000 | 0 of 100 | 7 of 100 | 0.50 % | 0 of 100 |",
        "| net W4A8 | 0.400 | 0.200 | 2.00, missed | 4.00 | – |",
        "as a command 1.20 s (target 1 s, missed)",
        "Not measured: C for x: not installed",
    ):
        assert part in text, text
