"""Citation, workflows and templates: readable, and of one mind with the package."""

import configparser
import pathlib
import re

import pytest

import tfbinreg

yaml = pytest.importorskip("yaml")

ROOT = pathlib.Path(__file__).parent.parent
GITHUB = ROOT / ".github"
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))


def read(path):
    return yaml.safe_load(path.read_text())


def test_the_citation_is_of_this_version_and_licence():
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == tfbinreg.__version__
    assert citation["license"] == SETUP["metadata"]["license"]
    assert set(citation) >= {"cff-version", "message", "title", "authors"}


def test_the_matrix_has_the_supported_pythons():
    (matrix,) = (
        job["strategy"]["matrix"]["python"]
        for job in read(GITHUB / "workflows" / "tests.yml")["jobs"].values()
        if "strategy" in job
    )
    classifiers = SETUP["metadata"]["classifiers"]
    assert matrix == re.findall(r"Python :: (3\.\d+)", classifiers)


def commands(path):
    return [
        step["run"] for job in read(path)["jobs"].values() for step in job["steps"] if "run" in step
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_what_the_makefile_has(path):
    makefile = (ROOT / "Makefile").read_text()
    targets = {*re.findall(r"^([\w-]+):", makefile, re.MULTILINE), ".venv/.ready"}
    called = {
        word
        for command in commands(path)
        for line in re.findall(r"^make (.*)$", command, re.MULTILINE)
        for word in line.split()
        if "=" not in word
    }
    assert called <= targets
    assert read(path)["permissions"] == {"contents": "read"}  # jobs that need more say so


def test_the_device_job_installs_what_ci_installs():
    needed = re.search(r"tools=\(([^)]*)\)", (ROOT / ".ci" / "run").read_text())[1].split()
    jobs = "\n".join(commands(GITHUB / "workflows" / "tests.yml"))
    assert needed and all(name in jobs for name in needed)


@pytest.mark.parametrize("name", ["bug_report.yml", "request.yml"])
def test_templates_ask_named_questions_once(name):
    template = read(GITHUB / "ISSUE_TEMPLATE" / name)
    assert {"name", "description", "body"} <= set(template)
    questions = [part for part in template["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in questions}) == len(questions)
    for part in questions:
        assert part["type"] in ("textarea", "dropdown", "input") and part["attributes"]["label"]


def test_templates_link_to_pages_that_there_are():
    for path in GITHUB.rglob("*.yml"):
        for page in re.findall(r"blob/HEAD/([\w./-]+)", path.read_text()):
            assert (ROOT / page).exists()


def test_hooks_are_those_of_make_lint():
    hooks = {
        hook["id"]: hook
        for repo in read(ROOT / ".pre-commit-config.yaml")["repos"]
        for hook in repo["hooks"]
    }
    assert {"ruff-check", "ruff-format"} <= set(hooks)
    for name in ("ruff-check", "ruff-format"):
        (requirement,) = hooks[name]["additional_dependencies"]
        assert requirement in SETUP["options.extras_require"]["dev"].split()
