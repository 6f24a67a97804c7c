"""`harness runs list|show`: the runs that there are, and what one is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.runs.listing import Listed

runs = typer.Typer(help="Run folders.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@runs.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs below a folder, the newest first."""
    from harness.base.progress import say
    from harness.cli.content import print_rows
    from harness.runs.listing import list_runs

    found = list_runs(folder)
    if as_json:
        print_rows([row._asdict() for row in found], as_json)
        return
    print_rows([_shown(row) for row in found], as_json)
    for row in found:
        if row.reason is not None:
            say(row.reason)


@runs.command("show")
def show(run: Annotated[Path, typer.Argument(help="A run folder.")], as_json: Json = False) -> None:
    """Show one run: its headline, its variants, and how long each stage took."""
    from harness.cli.content import print_fields
    from harness.report.headline import headline
    from harness.runs.listing import facts_of
    from harness.runs.run import read_run

    opened = read_run(run)
    facts = facts_of(opened)
    said = headline(opened.summary) if facts["state"] == "finished" else None
    print_fields({"headline": said, **facts}, as_json)


def _shown(row: Listed) -> dict[str, str]:
    from harness.report.words import visible

    # A path ends with the run's name, and a minute is near enough.
    shown = {
        "path": row.path,
        "model": row.model,
        "intervention": row.intervention,
        "date": (row.date or "")[:16].replace("T", " "),
        "state": row.state,
    }
    return {name: visible(value or "") for name, value in shown.items()}
