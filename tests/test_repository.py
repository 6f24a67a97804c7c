"""What people who join find: forms, owners, hooks, the same version and the same Pythons everywhere."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import harness
from harness.base.plugins import KINDS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_what_github_takes(form):
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert (
        {"name", "description", "body"} <= set(content) <= {"name", "description", "body", "labels", "title"}
    )
    asked = [row for row in content["body"] if row["type"] != "markdown"]
    assert asked
    assert len({row["id"] for row in asked}) == len(asked)
    assert {row["type"] for row in asked} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(row["attributes"]["label"] for row in asked)


def test_every_line_of_the_owners_names_files_that_exist():
    names = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if ".git" not in path.parts]
    lines = [line.split() for line in read(".github/CODEOWNERS").splitlines() if line and line[0] != "#"]
    assert lines[0][0] == "*"
    for pattern, *owners in lines:
        assert owners
        assert all(owner.startswith("@") for owner in owners)
        assert fnmatch.filter(names, f"{pattern.strip('/')}*"), pattern


def test_the_pre_commit_hooks_are_this_projects_own_tools():
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    needed = {hook["entry"].split()[0] for hook in repository["hooks"]}
    developers = {re.split(r"[\[<>=]", line)[0] for line in PROJECT["optional-dependencies"]["dev"]}
    assert needed == {"ruff", "mypy"}
    assert needed <= developers


def test_one_version_everywhere():
    assert PROJECT["version"] == harness.__version__
    assert yaml.safe_load(read("CITATION.cff"))["version"] == harness.__version__
    assert f"version = {{{harness.__version__}}}," in read("docs/README.md")
    for name in ("examples/ci/gitlab-ci.yml", "examples/ci/pre-commit-config.yaml", "docs/ci.md"):
        assert set(re.findall(r"v(\d+\.\d+\.\d+)", read(name))) == {harness.__version__}
    major = harness.__version__.partition(".")[0]
    assert f"moe-safety-harness@v{major}\n" in read("examples/ci/github.yml")
    assert f"moe-safety-harness@v{major}\n" in read("docs/ci.md")


def test_the_changelog_has_what_is_not_released_first_and_versions_in_order():
    headings = re.findall(r"^## (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    pattern = re.compile(r"(\d+)\.(\d+)\.(\d+) \((\d{4}-\d\d-\d\d|not tagged yet)\)")
    found = [pattern.fullmatch(heading) for heading in headings[1:]]
    assert all(found)
    # Every version is older than the one above it, and the newest is this one, which alone may lack its day.
    versions = [tuple(map(int, each.groups()[:3])) for each in found]
    assert versions == sorted(set(versions), reverse=True)
    assert headings[1].startswith(f"{harness.__version__} (")
    assert "not tagged yet" not in " ".join(headings[2:])


def test_the_classifiers_name_every_python_that_is_supported():
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert named == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_contributing_says_how_to_add_each_kind():
    table = "\n".join(line for line in read("CONTRIBUTING.md").splitlines() if line.startswith("|"))
    assert [kind for kind in KINDS.values() if kind not in table] == []
    for path in re.findall(r"`((?:harness|tasks|baselines)/[\w/.]*)`", table):
        assert (ROOT / path).exists(), path
