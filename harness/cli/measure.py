"""`harness measure`: a run's summary again, from its folder alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def measure(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Make a run's summary and reports again from its answers, verdicts and scores, without model or data."""
    from harness.report.terminal import print_report
    from harness.report.write import write_measured
    from harness.runs.integrity import verify_run
    from harness.runs.run import read_run
    from harness.runs.run_folder import RunFolder
    from harness.runs.upgrade import upgrade

    # The manifest is renewed, which must not take in an answer or a verdict that someone changed.
    verify_run(run, but_for=read_run(run).layout.is_made_of_others)
    folder = RunFolder(run)
    upgrade(folder)
    summary = write_measured(folder)
    if as_json:
        typer.echo(json.dumps(summary.to_json(), ensure_ascii=False))
    else:
        print_report(summary)
