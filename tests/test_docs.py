"""The documentation site: navigation, reference, code blocks, quoted messages; built when slow."""

import ast
import html
import importlib.util
import pathlib
import re
import subprocess
import sys
import urllib.parse

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
_SPEC = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
hooks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(hooks)

PAGES = sorted(path for path in DOCS.rglob("*.md"))


def navigation():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]


def test_every_page_is_in_the_navigation_once():
    pages = hooks.nav_pages(hooks.expanded(navigation(), hooks.pages_in_folder()))
    assert sorted(pages) == sorted([*hooks.pages_in_folder(), *hooks.generated()])


def test_stars_stand_for_what_is_not_named():
    nav = [{"A": ["one/a.md", "one/*"]}, "two/*"]
    known = ["one/a.md", "one/b.md", "one/more/c.md", "two/d.md"]
    assert hooks.expanded(nav, known) == [{"A": ["one/a.md", "one/b.md"]}, "two/d.md"]


def test_the_reference_has_every_public_name_once():
    assert hooks.public_names() == [name for name in tfbinreg.__all__ if name != "__version__"]
    referred = [name for _, names in hooks.REFERENCE.values() for name in names]
    assert sorted(referred) == sorted(hooks.public_names())


def test_links_lead_to_the_places_in_the_site():
    text = (
        "[a](docs/c.md#memory) ![b](docs/overview.svg) [c](#x) [d](https://x.y) [e](LICENSE)\n"
        "```\n[f](docs/c.md)\n```\n[g](benchmarks/README.md)"
    )
    assert hooks.relinked(text, "index.md") == (
        "[a](c.md#memory) ![b](overview.svg) [c](#x) [d](https://x.y) [e](files/LICENSE.txt)\n"
        "```\n[f](docs/c.md)\n```\n[g](benchmarks.md)",
        {"LICENSE"},
    )
    found, copied = hooks.relinked("[a](../../README.md#results) [b](lsq.md)", "methods/tqt.md")
    assert (found, copied) == ("[a](../index.md#results) [b](lsq.md)", set())


def test_the_reference_of_commands_is_their_help():
    page = hooks.generated()[hooks.COMMANDS]
    assert "\n## quantize\n" in page and "--flash_budget SIZE" in page and "exit codes:" in page


def blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_python_blocks_compile(path):
    for block in blocks(path):
        compile(block, str(path), "exec")


class TestGuidesRun:
    @pytest.fixture
    def scope(self, tmp_path, monkeypatch):
        """What the guides take for granted, and a folder of its own."""
        monkeypatch.chdir(tmp_path)
        keras.utils.set_random_seed(0)
        random = np.random.default_rng(0)
        images, labels = random.random((32, 16, 16, 1), np.float32), np.arange(32) % 4
        return {"tfbinreg": tfbinreg, "keras": keras, "np": np} | {
            "images": images,
            "labels": labels,
        }

    def run(self, name, scope, *changes):
        """Runs a guide's blocks one after the other, with changes to the text."""
        text = "\n".join(blocks(DOCS / "guides" / f"{name}.md"))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        exec(text, scope)

    def test_a_layer_of_your_own(self, scope):
        self.run("own_layer", scope)
        inputs = np.ones((2, 4), np.float32)
        plain = scope["q_model"].float_model().predict(inputs, verbose=0)
        np.testing.assert_allclose(plain, scope["model"].predict(inputs, verbose=0), rtol=1e-5)

    def test_a_method_of_your_own(self, scope):
        layers = keras.layers
        scope["model"] = keras.Sequential(
            [layers.Input((16, 16, 1)), layers.Flatten(), layers.Dense(4, activation="softmax")]
        )
        self.run("own_method", scope)
        assert scope["history"].history["shrink_strength"] == pytest.approx([0.0, 0.01])

    @pytest.mark.slow
    def test_seeing_the_training(self, scope, tmp_path):
        layers = keras.layers
        net = keras.Sequential(
            [layers.Input((16, 16, 1)), layers.Flatten(), layers.Dense(4, activation="softmax")]
        )
        scope["q_model"] = tfbinreg.quantize_apply(net, calibration_data=scope["images"])
        scope["q_model"].compile("adam", "sparse_categorical_crossentropy")
        self.run("seeing_training", scope)
        assert {"bins.png", "steps.png", "pareto.png", "logs"} <= {
            p.name for p in tmp_path.iterdir()
        }

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["keras3", "powers_of_two"])
    def test_others(self, scope, name):
        self.run(name, scope)
        assert int(scope["q_model"].finalized.numpy()) > 0

    @pytest.mark.slow
    def test_two_bits(self, scope):
        layers = keras.layers
        scope["model"] = keras.Sequential(
            [layers.Input((16, 16, 1)), layers.Flatten(), layers.Dense(4, activation="softmax")]
        )
        self.run("two_bits", scope, ("epochs=30", "epochs=1"))
        assert scope["q_model"].recipe.per_channel


def texts(tree):
    """Every text of a module, a place for a value being "…", and implicit joins made."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_troubleshooting_quotes_messages_that_there_are():
    sources = [*(ROOT / "tfbinreg").rglob("*.py"), *(ROOT / "tflite_tools").rglob("*.py")]
    told = "\n".join(text for path in sources for text in texts(ast.parse(path.read_text())))
    quoted = re.findall(r"^### (.*)$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) > 20
    assert [message for message in quoted if message not in told] == []


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet, which lets warnings pass.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
class TestTheSite:
    def test_links_and_anchors_lead_somewhere(self, site):
        broken = []
        for page in site.rglob("*.html"):
            if page.name != "404.html":
                broken += [(page.name, link) for link in _broken(page)]
        assert broken == []

    def test_docstrings_and_help_are_in_it(self, site):
        models = (site / "reference" / "models" / "index.html").read_text()
        assert 'id="tfbinreg.quantize_apply"' in models and "calibration_data" in models
        assert "::: " not in models
        commands = (site / "reference" / "commands" / "index.html").read_text()
        assert "--flash_granularity" in commands


def _broken(page):
    for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text()):
        file, _, anchor = html.unescape(link).partition("#")
        if re.match(r"\w+:|//", file):
            continue
        target = (page.parent / urllib.parse.unquote(file)).resolve() if file else page
        target = target / "index.html" if target.is_dir() else target
        if not target.exists() or (
            anchor and target.suffix == ".html" and not _has(target, anchor)
        ):
            yield link


def _has(page, anchor):
    return f'id="{urllib.parse.unquote(anchor)}"' in page.read_text()
