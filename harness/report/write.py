"""The reports of a run folder."""

from __future__ import annotations

from pathlib import Path

from harness.report.html import render_html
from harness.report.markdown import render_markdown
from harness.store.files import write_text
from harness.store.summary import read_summary

MARKDOWN, HTML = "report.md", "report.html"


def write_reports(run: Path) -> list[Path]:
    """Write RUN/report.md and RUN/report.html, each as a whole file, and return their paths.

    Raises:
        BadInputError: the summary is missing or broken, or a file beside it cannot be read.
    """
    summary = read_summary(run)
    # Both are made before either is written: a broken file leaves no half of a report.
    pages = {run / MARKDOWN: render_markdown(run, summary), run / HTML: render_html(run, summary)}
    for path, page in pages.items():
        write_text(path, page)
    return list(pages)
