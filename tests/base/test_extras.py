"""Extras and pip lines agree: pyproject.toml, the code's own table, the messages, README and documentation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from harness.base.extras import EXTRAS, installed, pip_line
from harness.tracking.base import TRACKERS

ROOT = Path(__file__).resolve().parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# For whoever works on the harness.
FOR_DEVELOPERS = {"browser", "docs", "dev"}
WRITTEN = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "action.yml",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "harness").rglob("*.py")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
# pip install 'moe-safety-harness[ray]', "moe-safety-harness[ray]" or '.[ray]'
EXTRA_OF_OURS = re.compile(r"(?:moe-safety-harness|(?<=['\" ])\.)\[([\w,]+)\]")


def named() -> dict[str, set[str]]:
    """Return the files that name each extra of ours."""
    files: dict[str, set[str]] = {}
    for path in WRITTEN:
        for extras in EXTRA_OF_OURS.findall(path.read_text(encoding="utf-8")):
            for extra in extras.split(","):
                files.setdefault(extra, set()).add(path.relative_to(ROOT).as_posix())
    return files


def test_the_table_has_the_extras_that_users_can_install_with_the_packages_that_they_bring():
    declared = DECLARED["optional-dependencies"]
    assert EXTRAS.keys() == declared.keys() - FOR_DEVELOPERS
    for name, extra in EXTRAS.items():
        assert [Requirement(line).name for line in declared[name]] == [extra.package]


def test_every_extra_that_is_named_anywhere_exists():
    found = named()
    assert found.keys() <= DECLARED["optional-dependencies"].keys()
    # All are found at all: in a guide or in the code.
    assert EXTRAS.keys() - found.keys() == set()


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_the_installing_page_says_what_each_extra_is_for(extra):
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{extra}` |"))
    for command in re.findall(
        r"harness \w+(?: \w+)*|--engine \w+|--track \w+|lora_all", EXTRAS[extra].purpose
    ):
        assert command in row, f"{extra}: {command}"


def test_messages_take_their_line_from_the_table():
    written_out = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "harness").rglob("*.py"))
        if "install 'moe-safety-harness[" in path.read_text(encoding="utf-8") and path.name != "extras.py"
    ]
    assert written_out == []
    used = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "harness").rglob("*.py"))
    assert {extra for extra in EXTRAS if f"pip_line('{extra}')" in used} == EXTRAS.keys() - set(TRACKERS)


def test_a_line_installs_the_distribution_that_pyproject_names():
    assert pip_line("ray") == f"pip install '{DECLARED['name']}[ray]'"
    assert installed("no-such-package") is None
