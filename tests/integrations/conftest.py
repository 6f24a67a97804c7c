"""The browser of the report's tests, and a run's logs for inspect_ai."""

from __future__ import annotations

import pytest
from report.browser.conftest import browser

from harness.cli.main import main

__all__ = ["browser"]


@pytest.fixture(scope="module")
def logs(run):
    """The logs of the module's run."""
    folder = run.parent / "logs"
    assert main(["export", str(run), str(folder), "--format", "inspect"]) == 0
    return folder
