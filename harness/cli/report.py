"""`harness report`: show finished runs again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import BadInputError


def report(
    runs: Annotated[list[Path], typer.Argument(help="One run folder, or several for a leaderboard.")],
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Also write one run's leaderboard as a picture for a README.")
    ] = None,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact", help="Also write report-redacted.html, without harmful prompts and answers, to share."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summaries as JSON.")] = False,
) -> None:
    """Print one run's leaderboard and write its report anew, or one leaderboard of several runs."""
    from harness.report.terminal import export_svg, leaderboard_of_runs, print_report
    from harness.report.write import write_redacted, write_reports
    from harness.store.integrity import verify_run
    from harness.store.summary import read_summary

    if len(runs) == 1:
        # Writing a report renews the manifest, which must not take in what someone changed.
        verify_run(runs[0])
    summaries = [read_summary(run) for run in runs]
    if redact and len(runs) > 1:
        raise BadInputError(f"--redact is for one run, {len(runs)} were named")
    if svg is not None:
        if len(runs) > 1:
            raise BadInputError(f"--svg draws one run, {len(runs)} were named")
        export_svg(summaries[0], svg)
    if as_json:
        contents = [summary.to_json() for summary in summaries]
        typer.echo(json.dumps(contents[0] if len(contents) == 1 else contents, ensure_ascii=False))
    elif len(runs) > 1:
        leaderboard_of_runs(runs)
    else:
        from harness.store.run_folder import RunFolder

        folder = RunFolder(runs[0])
        write_reports(folder.path)
        shown = write_redacted(folder.path) if redact else folder.path / "report.html"
        folder.write_manifest()
        print_report(summaries[0])
        typer.echo(f"\nReport: {shown}")
