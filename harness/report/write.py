"""The reports of a run folder."""

from __future__ import annotations

from pathlib import Path

from harness.base.files import write_jsonl, write_text
from harness.report.html import render_html
from harness.report.markdown import render_markdown
from harness.report.tables import FOLDER, tables
from harness.runs.evidence import Evidence
from harness.runs.judged import differences
from harness.runs.measure import measure
from harness.runs.run import Run
from harness.runs.run_folder import RunFolder
from harness.runs.summary import Summary, read_summary, write_summary

MARKDOWN, HTML, REDACTED = "report.md", "report.html", "report-redacted.html"


def write_measured(folder: RunFolder) -> Summary:
    """Measure a run from its folder alone and write what is made of it: summary, reports and manifest.

    Raises:
        BadInputError: the run is not finished, or a file that is needed cannot be used.
    """
    evidence = Evidence(Run(folder.path))
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
    summary = read_summary(run)
    # All are made before any is written: a broken file leaves no half of a report.
    pages = {run / MARKDOWN: render_markdown(run, summary), run / HTML: render_html(run, summary)}
    pages |= {run / FOLDER / name: text for name, text in tables(summary).items()}
    # It would tell of the run as it was.
    (run / REDACTED).unlink(missing_ok=True)
    (run / FOLDER).mkdir(exist_ok=True)
    for path, page in pages.items():
        write_text(path, page)


def write_redacted(run: Path) -> Path:
    """Write RUN/report-redacted.html, without prompts and answers of harmful tasks, and return its path.

    Raises:
        BadInputError: as for `write_reports`.
    """
    write_text(run / REDACTED, render_html(run, read_summary(run), redact=True))
    return run / REDACTED
