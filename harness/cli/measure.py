"""`harness measure`: a run's summary again, from its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import BadInputError
from harness.cli.shared import Json, print_json


def measure(
    run: Path,
    labels: Annotated[Path | None, typer.Option(show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Make a run's summary and reports again from its answers, verdicts and scores, without model or data.

    Args:
        run: The folder of a finished run.
        labels: People's labels of its answers, from `harness judges label`, to add first.
        as_json: Print the result as JSON.
    """
    from harness.report.terminal import print_report
    from harness.report.write import write_measured
    from harness.runs.integrity import verify_run
    from harness.runs.labels import add_labels
    from harness.runs.run import read_run
    from harness.runs.run_folder import RunFolder
    from harness.runs.upgrade import upgrade

    # The manifest is renewed, which must not take in an answer or a verdict that someone changed.
    opened = read_run(run)
    if not opened.is_evaluated:
        raise BadInputError(f"{run} is not finished or being made anew: run its command again to its end")
    verify_run(run, but_for=opened.layout.is_made_of_others)
    folder = RunFolder(run)
    upgrade(folder)
    if labels is not None:
        add_labels(folder, labels)
    summary = write_measured(folder)
    if as_json:
        print_json(summary.to_json())
    else:
        print_report(summary)
