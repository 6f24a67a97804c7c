"""The reports of a run folder."""

from __future__ import annotations

from pathlib import Path

from harness.base.files import write_jsonl, write_text
from harness.report.html import render_html
from harness.report.markdown import render_markdown
from harness.report.tables import tables
from harness.runs.evidence import Evidence
from harness.runs.judged import differences
from harness.runs.layout import Layout
from harness.runs.measure import measure
from harness.runs.run_folder import RunFolder
from harness.runs.summary import Summary, read_summary, write_summary


def write_measured(folder: RunFolder) -> Summary:
    """Measure a run from its folder alone and write what is made of it: summary, reports and manifest.

    Raises:
        BadInputError: the run is not finished, or a file that is needed cannot be used.
    """
    evidence = Evidence(folder.path)
    summary = measure(evidence)
    write_summary(folder.path, summary)
    if (differ := differences(evidence)) is not None:
        write_jsonl(folder.layout.differences, differ)
    write_reports(folder.path)
    folder.write_manifest()
    return summary


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
