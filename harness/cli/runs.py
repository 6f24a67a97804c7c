"""`harness runs list|show`: the runs that there are, and what one is about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.shared import Json, print_fields, print_rows

runs = typer.Typer(help="Run folders.", no_args_is_help=True)


@runs.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(metavar="DIR")] = Path("runs"), as_json: Json = False
) -> None:
    """List the runs below a folder, the newest first.

    Args:
        folder: A folder of runs.
        as_json: Print the result as JSON.
    """
    from harness.base.progress import say
    from harness.report.words import visible
    from harness.runs.listing import list_runs

    rows = [row._asdict() for row in list_runs(folder)]
    if as_json:
        print_rows(rows, as_json)
        return
    # A path ends with the run's name, and a minute is near enough.
    shown = [row | {"date": (row["date"] or "")[:16].replace("T", " ")} for row in rows]
    columns = ("path", "model", "intervention", "date", "state")
    print_rows([{name: visible(row[name] or "") for name in columns} for row in shown], as_json)
    for row in rows:
        if row["reason"] is not None:
            say(row["reason"])


@runs.command("show")
def show(run: Path, as_json: Json = False) -> None:
    """Show one run: its headline, its variants, and how long each stage took.

    Args:
        run: A run folder.
        as_json: Print the result as JSON.
    """
    from harness.report.finding import headline
    from harness.runs.listing import facts_of
    from harness.runs.run import read_run

    opened = read_run(run)
    facts = facts_of(opened)
    line = headline(opened.summary) if facts["state"] == "finished" else None
    if not as_json and not any(facts["variants"].values()):
        # An older run kept no specifications: the names are all there is.
        facts["variants"] = list(facts["variants"])
    print_fields({"headline": line, **facts}, as_json)
