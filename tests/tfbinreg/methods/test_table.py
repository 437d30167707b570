import dataclasses
import pathlib
import runpy

from tfbinreg.methods import roster
from tfbinreg.methods.table import COLUMNS, method_table

ROOT = pathlib.Path(__file__).parents[3]


def test_the_documents_have_the_table():
    # Methods that tests register say nothing of themselves.
    assert method_table() in (ROOT / "docs" / "methods.md").read_text()


def test_every_method_of_the_package_has_a_full_row():
    lines = method_table().split("\n")
    own = [method for method in roster.methods() if method.about is not None]
    assert {"lsq", "trs", "kure"} <= {method.name for method in own}
    assert len(lines) == 2 + len(own)
    for line in lines[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == len(COLUMNS) and all(cells)


def test_every_method_has_a_page_with_its_options():
    folder = ROOT / "docs" / "methods"
    own = [method for method in roster.methods() if method.about is not None]
    assert {path.stem for path in folder.glob("*.md")} == {method.name for method in own}
    for method in own:
        page = folder.joinpath(f"{method.name}.md").read_text()
        for part in ("When to use it", "Measured", "Uncertain"):
            assert f"**{part}.**" in page
        assert all(f"`{field.name}`" in page for field in dataclasses.fields(method.options))
        assert f"(methods/{method.name}.md)" in (ROOT / "docs" / "methods.md").read_text()


def test_the_table_is_printed(capsys):
    runpy.run_module("tfbinreg.methods", run_name="__main__")
    assert capsys.readouterr().out.startswith("| name | what it is | acts |")
