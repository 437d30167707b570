"""The notebooks are their texts, and run."""

import importlib
import re
import sys

import pytest

pytest.importorskip("nbclient")
import jupytext
import nbformat
from quick import slow

sys.path.insert(0, "examples/notebooks")
execute = importlib.import_module("execute")


def read(name):
    return nbformat.read(execute.FOLDER / f"{name}.ipynb", as_version=4)


def sources(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("name", execute.NAMES)
def test_a_notebook_is_what_its_text_says(name):
    text = jupytext.read(execute.FOLDER / f"{name}.py", fmt="py:percent")
    assert sources(read(name)) == sources(text), "make notebooks"


@pytest.mark.parametrize("name", execute.NAMES)
def test_every_cell_was_run_and_nothing_failed(name):
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    shown = "".join(output.get("text", "") for output in outputs)
    assert not re.search(r"\x1b|(?<![\w.])/(home|work|tmp|root)/|Warning", shown)


@pytest.mark.parametrize(
    "name", [*slow("quickstart", "reading_a_report", "resnet8_16kb"), "own_model"]
)
def test_a_notebook_runs(name, monkeypatch):
    monkeypatch.setenv("TFBINREG_DATA", "synthetic")  # and few steps
    notebook = execute.executed(name)
    assert sources(notebook) == sources(read(name))


def test_what_a_library_logs_is_left_out():
    def stream(text, name="stderr"):
        return nbformat.v4.new_output("stream", name=name, text=text)

    assert execute._without_log(stream("I0000 00:00 1 port.cc:1] on.\n\n")) is None
    assert execute._without_log(stream("E0000 x\nUserWarning: y\n")).text == "UserWarning: y\n"
    assert execute._without_log(stream("I0000 x\n", "stdout")).text == "I0000 x\n"


def test_unknown_names_are_told(capsys):
    with pytest.raises(SystemExit):
        execute.main(["quickstrat"])
    assert (
        "there is no notebook quickstrat: take own_model, quickstart, read"
        in capsys.readouterr().err
    )
