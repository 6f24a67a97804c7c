"""`harness report`: show finished runs again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.base.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="One run folder; or several, or folders of runs, for a leaderboard.")
    ],
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Also write one run's leaderboard as a picture for a README.")
    ] = None,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact", help="Also write report-redacted.html, without harmful prompts and answers, to share."
        ),
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the leaderboard of runs as a page.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write it as Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write it as CSV, one figure a line.")] = None,
    group_by: Annotated[
        Literal["model", "variant", "none"] | None,
        typer.Option("--group-by", help="Of a leaderboard: what stands together. [model]"),
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="TASK", help="Of a leaderboard: best on this task first.")
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(
            "--watch", metavar="SECONDS", min=0.1, help="Look for new runs this often, until Ctrl-C."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Print one run's leaderboard and write its report anew, or one leaderboard of several runs."""
    from harness.runs.layout import Layout

    is_run = len(runs) == 1 and Layout(runs[0]).is_run()
    of_many = {"--html": html, "--markdown": markdown, "--csv": csv, "--group-by": group_by, "--sort": sort}
    if is_run or (len(runs) == 1 and not runs[0].is_dir()):
        for option, value in (of_many | {"--watch": watch}).items():
            if value is not None:
                raise BadInputError(f"{option} is for a leaderboard of several runs, one was named")
        _one(runs[0], svg, redact, as_json)
        return
    if svg is not None or redact:
        raise BadInputError(f"{'--svg' if svg else '--redact'} is for one run, several were named")
    from harness.report.boards.write import Outputs, keep_writing, write_once

    outputs = Outputs(html, markdown, csv, as_json, group_by or "model", sort)
    if watch is None:
        write_once(_absolute(runs), outputs)
    else:
        keep_writing(_absolute(runs), outputs, watch)


def _absolute(runs: Sequence[Path]) -> list[Path]:
    # A folder that is named twice is one run.
    return list(dict.fromkeys(runs))


def _one(run: Path, svg: Path | None, redact: bool, as_json: bool) -> None:
    from harness.report.terminal import export_svg, print_report
    from harness.report.write import write_redacted, write_reports
    from harness.runs.integrity import verify_run
    from harness.runs.layout import Layout
    from harness.runs.run_folder import RunFolder
    from harness.runs.summary import read_summary

    # Writing a report renews the manifest, which must not take in what someone changed.
    verify_run(run)
    summary = read_summary(run)
    if svg is not None:
        export_svg(summary, svg)
    if as_json and not redact:
        typer.echo(json.dumps(summary.to_json(), ensure_ascii=False))
        return
    folder = RunFolder(run)
    write_reports(run)
    shown = write_redacted(run) if redact else Layout(run).html
    folder.write_manifest()
    if as_json:
        typer.echo(json.dumps(summary.to_json(), ensure_ascii=False))
        return
    print_report(summary)
    typer.echo(f"\nReport: {shown}")
