"""`harness report`: show finished runs again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.base.errors import BadInputError
from harness.base.progress import say
from harness.cli.shared import Json, print_json


def report(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="[RUN]...")] = None,
    svg: Path | None = None,
    redact: Annotated[bool, typer.Option("--redact")] = False,
    html: Path | None = None,
    markdown: Path | None = None,
    csv: Path | None = None,
    group_by: Literal["model", "variant", "none"] | None = None,
    sort: Annotated[str | None, typer.Option(metavar="TASK")] = None,
    watch: Annotated[float | None, typer.Option(metavar="SECONDS", min=0.1)] = None,
    open_: Annotated[bool, typer.Option("--open")] = False,
    as_json: Json = False,
) -> None:
    """Print a run (the newest, if none is named) and write its report anew, or one leaderboard of several runs.

    Args:
        runs: One run folder; or several, or folders of runs, for a leaderboard. [the newest finished run in runs/]
        svg: Also write one run's leaderboard as a picture for a README.
        redact: Also write report-redacted.html, without harmful prompts and answers, to share.
        html: Write the leaderboard of runs as a page.
        markdown: Write it as Markdown.
        csv: Write it as CSV, one figure per line.
        group_by: Group a leaderboard's rows by this. [model]
        sort: Sort a leaderboard by this task, the best first.
        watch: Look for new runs this often, until Ctrl-C.
        open_: Open the report, or the leaderboard's page (--html), in a browser.
        as_json: Print the result as JSON.
    """
    from harness.runs.layout import Layout
    from harness.runs.listing import newest

    runs = runs or [newest()]
    is_run = len(runs) == 1 and Layout(runs[0]).is_run()
    of_many = {"--html": html, "--markdown": markdown, "--csv": csv, "--group-by": group_by, "--sort": sort}
    if is_run or (len(runs) == 1 and not runs[0].is_dir()):
        for option, value in (of_many | {"--watch": watch}).items():
            if value is not None:
                raise BadInputError(f"{option} is for a leaderboard of several runs, one was named")
        page = _one(runs[0], svg, redact, as_json)
        if open_ and page is not None:
            _open(page)
        return
    if svg is not None or redact:
        raise BadInputError(f"{'--svg' if svg else '--redact'} is for one run, several were named")
    if open_ and html is None:
        raise BadInputError("--open: a leaderboard is a page where --html names its file")
    from harness.report.boards.write import Outputs, keep_writing, write_once

    outputs = Outputs(html, markdown, csv, as_json, group_by or "model", sort)
    # A folder that is named twice is one run.
    places = list(dict.fromkeys(runs))
    if watch is None:
        write_once(places, outputs)
        if open_ and html is not None:
            _open(html)
    else:
        keep_writing(places, outputs, watch)


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        say(f"no browser was found to open {page}")


def _one(run: Path, svg: Path | None, redact: bool, as_json: bool) -> Path | None:
    """Show one run; returns its page, or None where it could not be written."""
    from harness.report.terminal import export_svg, print_report
    from harness.report.write import write_redacted, write_reports
    from harness.runs.layout import Layout
    from harness.runs.run import Run
    from harness.runs.run_folder import RunFolder

    # Writing a report renews the manifest, which must not take in what someone changed.
    opened = Run(run)
    opened.verify()
    summary = opened.summary
    if svg is not None:
        export_svg(summary, svg)
    if as_json and not redact:
        print_json(summary.to_json())
        return opened.layout.html
    try:
        write_reports(run)
        shown: Path | None = write_redacted(run) if redact else Layout(run).html
        RunFolder(run).write_manifest()
    except OSError as error:
        if redact:
            raise
        say(
            f"warning: {run} cannot be written ({error.strerror or error}): its report files are those of before"
        )
        shown = None
    if as_json:
        print_json(summary.to_json())
        return shown
    print_report(summary)
    if shown is not None:
        typer.echo(f"\nReport: {shown}")
    return shown
