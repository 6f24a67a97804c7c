"""The documentation builds as a site, as `tox run -e docs` builds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("material")
pytest.importorskip("mkdocstrings_handlers.python")
pytestmark = [pytest.mark.integrations, pytest.mark.slow]


def test_the_site_builds_without_a_warning_and_holds_every_page(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    missing = [
        page for page in pages if page.name != "README" and not (tmp_path / page / "index.html").is_file()
    ]
    assert missing == []
    assert "harness.open" in (tmp_path / "reference/python/index.html").read_text(encoding="utf-8")
