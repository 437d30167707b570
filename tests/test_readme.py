"""The README is run, and the documents are compared with the code."""

import pathlib
import re

import pytest
import tf_keras as keras
from test_layering import ROOMS

import tfbinreg
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.network.layer_kinds import support_table

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT.joinpath("README.md").read_text()
METHODS = ROOT.joinpath("docs", "methods.md").read_text()
TRAINING = ROOT.joinpath("docs", "training.md").read_text()
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(
        path
        for name in ("docs", "examples", "benchmarks")
        for path in ROOT.joinpath(name).rglob("*.md")
    ),
]


def blocks(text=README):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def changed(text, old, new):
    """The text with another word in it, which has to be there."""
    assert old in text
    return text.replace(old, new)


def test_quickstart_and_recipes_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    quickstart, recipe, squeezed = blocks()
    scope = {}
    quickstart = changed(quickstart, "epochs=10", "epochs=6")
    exec(changed(quickstart, 'two_stage", 5', 'two_stage", 3'), scope)
    assert (tmp_path / "q.keras").exists()
    history = scope["q_model"].history.history
    assert history["accuracy"][-1] > 0.5 and history["br_stage"][-1] == 2

    recipe = changed(recipe, 'layer="block_1_.*"', 'layer="dense.*"')
    exec(changed(recipe, "DepthwiseConv2D", "Conv2D"), scope)
    kernels = {site.name: site.quantizer for site in kernel_sites(scope["q_model"])}
    assert {(k.bits, k.axis) for name, k in kernels.items() if "conv" in name} == {(4, 3)}
    assert {(k.bits, k.axis) for name, k in kernels.items() if "dense" in name} == {(8, None)}
    (tmp_path / "first.tflite.json").write_text(tfbinreg.Recipe(weight_bits=3).to_json())
    exec(squeezed, scope)
    made = scope["q_model"].recipe
    assert (made.weight_bits, made.rules) == (3, ())

    methods, *others = blocks(METHODS)
    exec(changed(methods, 'layer="block_1_.*"', 'layer="dense.*"'), scope)
    history = scope["q_model"].history.history
    assert history["msqe_strength"] == pytest.approx([0.0, 0.1])
    assert history["br_strength"] == [0.5, 0.5]
    assert scope["q_model"].recipe.options["msqe"] == {"detach_step": False}
    for block in others:
        exec(block, scope)
    assert "code_changes" in scope["history"].history

    stages, ternary, lowered, mixed = blocks(TRAINING)
    exec(stages, scope)
    assert {"accuracy", "distillation_loss"} <= set(scope["q_model"].history.history)
    assert scope["q_model"].recipe.weight_bits == 2
    exec(ternary, scope)
    assert all(part.after <= part.before for part in scope["report"].parts)
    exec(lowered, scope)
    assert scope["lowered"].parts[-1].after < scope["lowered"].parts[0].before
    exec(mixed, scope)
    (own,) = (k for k in kernel_sites(scope["mixed"]) if k.grid().channel_bits is not None)
    assert {*own.grid().channel_bits} == {0, 1, 4} and own.grid().channel_bits.count(0) == 8


def test_quickstart_is_short():
    assert len(blocks()[0].strip().splitlines()) <= 24


def test_support_table_is_the_kinds():
    assert support_table() in ROOT.joinpath("docs", "supported.md").read_text()


def anchors(text):
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path, text):
    """What the relative links of a document point to without it being there."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = link.partition("#")
        target = path.parent.joinpath(file).resolve() if file else path
        if re.match(r"\w+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    return broken


def missing_paths(text):
    """The files of the repository that a document names in backquotes and that are not there."""
    named = re.findall(
        r"`((?:tests|docs|examples|benchmarks|tfbinreg|tflite_tools)/[\w./]+)`", text
    )
    return [name for name in named if not ROOT.joinpath(name).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_documents_point_to_is_there(path):
    assert broken_links(path, path.read_text()) == []
    assert missing_paths(path.read_text()) == []


def test_links_to_nothing_are_found():
    text = "[a](nowhere.md) [b](README.md#no-such-heading) [c](README.md#install) [d](https://x.y)"
    assert broken_links(ROOT / "x.md", text) == ["nowhere.md", "README.md#no-such-heading"]
    assert missing_paths("`tests/test_nothing.py`, `tests/conftest.py`") == [
        "tests/test_nothing.py"
    ]


def test_the_map_has_the_rooms_in_their_order():
    table = ROOT.joinpath("docs", "architecture.md").read_text()
    rooms = re.findall(r"^(\S+\.\w+):", ROOMS, re.MULTILINE)
    assert re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE) == rooms


def test_every_decision_is_in_the_index():
    folder = ROOT / "docs" / "decisions"
    index = folder.joinpath("README.md").read_text()
    records = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    for number, path in enumerate(records, 1):
        title = path.read_text().split("\n")[0]
        assert path.name.startswith(f"{number:04d}-") and title.startswith(f"# {number}. ")
        assert f"| [{number}]({path.name}) | {title.partition('. ')[2]} |" in index
