"""`python -m pytest tests/goldens --update-goldens` writes the golden files anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from normalised import difference, read_files, write_files

GOLDENS = Path(__file__).resolve().parent / "files"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens", action="store_true", help="write the golden files of tests/goldens anew"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Mapping[str, str]], None]:
    """Compare files with the golden ones of a name; where they differ, the test shows how."""

    def compare(name: str, files: Mapping[str, str]) -> None:
        folder = GOLDENS / name
        if request.config.getoption("--update-goldens", default=False):
            write_files(folder, files)
        found = difference(read_files(folder), files)
        if found:
            pytest.fail(
                f"{name} differs from its golden files (--update-goldens accepts it):\n{found}", pytrace=False
            )

    return compare
