"""Hooks of mkdocs (mkdocs.yml): what the site has besides the pages in this folder.

- Documents elsewhere in the repository become pages, and links from and to them are followed.
- A file that a page links to, and that is no page, is copied.
- The reference is made: of `tfbinreg` from its docstrings, of the commands from their help.

Only mkdocs runs `on_...`; the rest needs nothing but Python, and tests/test_docs.py uses it.
"""

from __future__ import annotations

import ast
import os
import pathlib
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent

# Documents outside this folder -> pages of the site.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "examples.md",
    "examples/study/README.md": "study_harness.md",
}
# Pages of the reference -> title and names of tfbinreg.
REFERENCE: dict[str, tuple[str, Sequence[str]]] = {
    "models": (
        "Quantized models",
        (
            *("plan", "Plan", "quantize_apply", "QuantizedModel", "requantize"),
            *("strip_quantization", "load_model", "quantize_scope", "register_layer"),
            *("QuantizationWarning", "RefusedError"),
        ),
    ),
    "recipes": ("Recipes", ("Recipe", "Rule", "recipes")),
    "training": (
        "Training",
        (
            *("BinRegularization", "PenaltySchedule", "distill", "train_blocks", "BlockLoss"),
            *("solve", "SolveReport", "BatchNormReestimation", "reestimate_batch_norm"),
            *("FreezeBatchNorm", "EvaluateAverages", "QuantizerLog", "TransitionLog"),
            *("QuantizationBoard", "finalize", "FinalizeReport"),
        ),
    ),
    "plot": ("Pictures", ("plot",)),
    "budgets": (
        "Flash budgets",
        ("fit_flash_budget", "FlashBudget", "FlashBudgetSchedule", "found_recipe"),
    ),
    "files": ("Files and codes", ("to_tflite", "integer_codes", "CodedTensor", "Grid")),
    "methods": (
        "Methods of your own",
        (
            *("Method", "register_method", "KernelSpec", "GridSpec", "GridTensors", "KernelView"),
            *("KernelStep", "SolverView", "Solved", "LSQWeightQuantizer"),
            *("LSQActivationQuantizer", "LSQPlusActivationQuantizer", "lsq_quantize"),
            *("bin_regularization", "BinOptions"),
        ),
    ),
    "tfmot": ("With tfmot", ("LSQQuantizeScheme", "LSQQuantizeConfig")),
}
COMMANDS = "reference/commands.md"
_TOOLS = "\n::: tflite_tools.read_codes\n\n::: tflite_tools.c_bytes\n"


def public_names() -> list[str]:
    """The names of tfbinreg, read and not imported."""
    tree = ast.parse((ROOT / "tfbinreg" / "__init__.py").read_text())
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return [name for name in names if name != "__version__"]


def generated() -> dict[str, str]:
    """The pages that are made: path in the site -> Markdown."""
    pages = {page: (ROOT / source).read_text() for source, page in OUTSIDE.items()}
    for page, (title, names) in REFERENCE.items():
        entries = "\n".join(f"::: tfbinreg.{name}\n" for name in names)
        more = _TOOLS if page == "files" else ""
        pages[f"reference/{page}.md"] = f"# {title}\n\n{entries}{more}"
    pages[COMMANDS] = _commands()
    return pages


def _commands() -> str:
    """The help of every command."""
    from tflite_tools.commands.arguments import whole_parser

    os.environ["COLUMNS"] = "100"
    parser = whole_parser()
    (group,) = (action for action in parser._actions if isinstance(action.choices, dict))
    parts = [f"# Commands\n\n```text\n{parser.format_help()}```"]
    for name, command in group.choices.items():  # type: ignore[union-attr]
        parts.append(f"## {name}\n\n```text\n{command.format_help().rstrip()}\n```")
    return "\n\n".join(parts)


def pages_in_folder() -> list[str]:
    """The Markdown files of this folder."""
    return sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def expanded(nav: Any, known: Sequence[str]) -> Any:
    """Navigation with `folder/*` replaced by the pages there that nothing else names."""
    named = set(nav_pages(nav))

    def expand(item: Any) -> Iterator[Any]:
        if isinstance(item, dict):
            yield {title: _each(part, expand) for title, part in item.items()}
        elif isinstance(item, str) and item.endswith("/*"):
            yield from (
                page for page in known if posixpath.dirname(page) == item[:-2] and page not in named
            )
        else:
            yield item

    return _each(nav, expand)


def _each(nav: Any, expand: Callable[[Any], Iterator[Any]]) -> Any:
    return [new for item in nav for new in expand(item)] if isinstance(nav, list) else nav


def nav_pages(nav: Any) -> list[str]:
    """The pages that a navigation names, in order."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in nav_pages(part)]


def place(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"files/{path}.txt"  # which browsers show


def source_of(page: str) -> str:
    """The file of the repository that a page is made from."""
    outside = {made: source for source, made in OUTSIDE.items()}
    return outside.get(page, f"docs/{page}")


def relinked(text: str, page: str) -> tuple[str, set[str]]:
    """Markdown whose relative links lead to the places in the site.

    Args:
        text: of the page.
        page: its path in the site.

    Returns:
        The text, and the files of the repository that it links to and that are no pages.
    """
    folder = posixpath.dirname(source_of(page))
    copied: set[str] = set()

    def moved(match: re.Match[str]) -> str:
        target, hash_sign, anchor = match[1].partition("#")
        if not target or re.match(r"\w+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        there = place(path)
        if there.startswith("files/"):
            copied.add(path)
        relative = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return f"]({relative}{hash_sign}{anchor})"

    parts = re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)
    parts[::2] = [re.sub(r"\]\(([^)\s]+)\)", moved, part) for part in parts[::2]]
    return "".join(parts), copied


def slug(heading: str, separator: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower().strip()).replace(" ", separator)


def on_config(config: Any) -> Any:
    config.nav = expanded(config.nav, pages_in_folder())
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    made = generated()
    texts = {**{page: (DOCS / page).read_text() for page in pages_in_folder()}, **made}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for path in {path for page, text in texts.items() for path in relinked(text, page)[1]}:
        files.append(File.generated(config, place(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return relinked(markdown, page.file.src_uri)[0]
