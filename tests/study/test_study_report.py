"""Tables, pictures and the command line of the study, on made-up results."""

import subprocess
import sys
from pathlib import Path

import pytest
from study_runs import make_study

from examples.study import __main__ as cli
from examples.study.folders import Folders, write_result
from examples.study.pictures import draw
from examples.study.read import read_study
from examples.study.report import report

ROOT = Path(__file__).parents[2]
ACCURACIES = {  # by arm and seed, with the moving statistics
    "lsq": (60.0, 64.0, 62.0),
    "br": (61.0, 66.0, 65.0),  # 1, 2 and 3 better: 2.00 +- 2.48
    "sgd": (50.0, 54.0, 52.0),  # always 10 worse
}


@pytest.fixture
def made_up(tmp_path):
    study = read_study("smoke")
    folders = Folders(tmp_path, tmp_path / "results")
    for row in study.runs():
        value = ACCURACIES[row.name][row.seed]
        card = {"settings": row.settings(), "diverged": False, "cpu_seconds": 6 * row.arm.epochs}
        card["c_bytes"] = None if row.name == "br" else 1000 + 2 * row.seed
        final = {
            "moving": {"choice": 0.0, "test": value},
            "reestimated_plain": {"choice": 0.0, "test": value - 1},
            "reestimated": {"choice": 0.0, "test": value + 1},
            "deployed": {"choice": 0.0, "test": value + 2},
        }
        curves = {"choice": [10.0, 20.0, value], "near_level": [0.2, 0.25]}
        curves |= {"error": [0.1, 0.05], "flips": [0.01, 0.002]}
        write_result(folders, row, {"card": card, "final": final, "curves": curves})
    return study, folders


def line_of(text, arm):
    [line] = [line for line in text.splitlines() if line.startswith(f"| {arm} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_means_and_paired_differences(made_up):
    text = report(*made_up)
    assert line_of(text, "lsq")[:4] == ["lsq", "3", "62.00 ± 2.00", ""]
    assert line_of(text, "br")[2:4] == ["64.00 ± 2.65", "+2.00 (-0.48 to +4.48)"]
    cells = line_of(text, "sgd")
    assert cells[3] == "**-10.00 (-10.00 to -10.00)**"
    assert [cells[place] for place in (4, 6, 8)] == [f"{mean}.00 ± 2.00" for mean in (51, 53, 54)]
    assert cells[-4:] == ["25.0", "0.050", "1,002", "6.0"]
    assert line_of(text, "br")[-2] == ""
    assert "test rows" in text and "95 %" in text and "not corrected" in text


def test_few_seeds_and_diverged_runs_are_marked(made_up):
    study, folders = made_up
    folders.result(study.find("probe-w2a2-br-s1")).unlink()
    folders.result(study.find("probe-w2a2-br-s2")).unlink()
    row = study.find("probe-w2a2-sgd-s0")
    card = {"settings": row.settings(), "diverged": True, "cpu_seconds": 3}
    write_result(folders, row, {"card": card, "final": {}, "curves": {"choice": [10.0]}})
    text = report(study, folders)
    assert line_of(text, "br")[1:4] == ["1", "61.00", "+1.00 (–)"]
    assert line_of(text, "sgd")[1:3] == ["3, 1 diverged", "53.00 ± 1.41"]


def test_a_tuning_study_says_that_no_test_row_was_looked_at(tmp_path):
    text = report(read_study("tune"), Folders(tmp_path, tmp_path))
    assert "no test row was looked at" in text


def test_pictures(made_up, tmp_path):
    paths = draw(*made_up, tmp_path / "pictures")
    assert [path.name for path in paths] == [
        "smoke-probe-w2a2-curves.png",
        "smoke-probe-w2a2-differences.png",
        "smoke-probe-w2a2-bins.png",
        "smoke-probe-w2a2-errors.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_list_and_report_on_the_command_line(made_up, capsys):
    study, folders = made_up
    folders.result(study.find("probe-w2a2-sgd-s2")).unlink()
    monkey = ["list", "smoke", f"--results={folders.results}"]
    options = cli.parse(monkey)
    assert options.function(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "done probe-w2a2-lsq-s0" and lines[-1] == "-    probe-w2a2-sgd-s2"


def test_what_is_wrong_is_one_line(tmp_path):
    command = [sys.executable, "-m", "examples.study", "list", "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("examples.study: No study can be read from")
    assert len(done.stderr.splitlines()) == 1


def test_workers_are_given_the_study_of_their_row(tmp_path):
    study = make_study(tmp_path)
    [row] = study.runs()
    options = cli.parse(["run", str(tmp_path / "some.json"), "--data_dir=data", "--jobs=2"])
    assert cli._worker(row, options)[2:6] == [
        "examples.study",
        "row",
        str(tmp_path / "some.json"),
        row.key,
    ]
    assert cli._worker(row.start, options)[4:6] == [str(tmp_path / "net.json"), row.start.key]
    options = cli.parse(["run", "smoke", "--data_dir=data"])
    row = read_study("smoke").runs()[0]
    assert cli._worker(row.start, options)[4] == "smoke_float"
