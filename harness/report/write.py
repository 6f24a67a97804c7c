"""The reports of a run folder."""

from __future__ import annotations

from pathlib import Path

from harness.base.files import write_text
from harness.report.html import render_html
from harness.report.markdown import render_markdown
from harness.report.tables import tables
from harness.runs.layout import Layout
from harness.runs.summary import read_summary


def write_reports(run: Path) -> None:
    """Write RUN/report.md, RUN/report.html and RUN/tables/, each file whole.

    Raises:
        BadInputError: the summary is missing or broken, or a file beside it cannot be read.
    """
    summary, files = read_summary(run), Layout(run)
    # All are made before any is written: a broken file leaves no half of a report.
    pages = {files.markdown: render_markdown(run, summary), files.html: render_html(run, summary)}
    pages |= {files.tables / name: text for name, text in tables(summary).items()}
    # It describes the previous state of the run.
    files.redacted.unlink(missing_ok=True)
    files.tables.mkdir(exist_ok=True)
    for path, page in pages.items():
        write_text(path, page)


def write_redacted(run: Path) -> Path:
    """Write RUN/report-redacted.html, without prompts and answers of harmful tasks, and return its path.

    Raises:
        BadInputError: as for `write_reports`.
    """
    path = Layout(run).redacted
    write_text(path, render_html(run, read_summary(run), redact=True))
    return path
