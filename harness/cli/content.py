"""`harness tasks|baselines|judges list|show`: what can be named on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

tasks = typer.Typer(help="Prompt tasks and capability tasks.", no_args_is_help=True)
baselines = typer.Typer(help="Interventions and baselines.", no_args_is_help=True)
judges = typer.Typer(help="Judges that label answers.", no_args_is_help=True)

Include = Annotated[
    list[Path] | None, typer.Option("--include", help="Folder with more YAML files; may be repeated.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="A name that `list` prints.")]


@tasks.command("list")
def list_tasks(include: Include = None, as_json: Json = False) -> None:
    """List prompt tasks, then capability tasks."""
    from harness.capability.tasks import list_capability_tasks
    from harness.data import task

    rows = [
        {
            "name": spec.name,
            "kind": spec.kind,
            "roles": ", ".join(spec.roles),
            "description": spec.description,
        }
        for spec in task.list_tasks(include or [])
    ]
    rows += [
        {"name": name, "kind": "capability", "roles": "lm-eval", "description": "run with --capability"}
        for name in list_capability_tasks(include or [])
    ]
    _print_rows(rows, as_json)


@tasks.command("show")
def show_task(name: Name, include: Include = None, as_json: Json = False) -> None:
    """Show one prompt task in full."""
    from harness.data.task import find_task

    _print_fields(find_task(name, include or []).model_dump(mode="json"), as_json)


@baselines.command("list")
def list_baselines(include: Include = None, as_json: Json = False) -> None:
    """List what --intervention and --baselines take."""
    from harness.interventions.spec import list_variants

    specs = list_variants(include or []).values()
    _print_rows(
        [
            {
                "name": s.name,
                "intervention": s.intervention,
                "experts": s.experts or "",
                "description": s.description,
            }
            for s in specs
        ],
        as_json,
    )


@baselines.command("show")
def show_baseline(name: Name, include: Include = None, as_json: Json = False) -> None:
    """Show one baseline in full."""
    from harness.interventions.spec import find_variant

    _print_fields(find_variant(name, include or []).model_dump(mode="json"), as_json)


@judges.command("list")
def list_judges(as_json: Json = False) -> None:
    """List what --judge takes."""
    from harness.judges.base import JUDGES

    _print_rows([_judge(name) for name in JUDGES], as_json)


@judges.command("show")
def show_judge(name: Name, as_json: Json = False) -> None:
    """Show what a judge measures, and how."""
    _print_fields(_judge(name), as_json)


def _judge(name: str) -> dict[str, Any]:
    from harness.judges.base import JUDGES

    made = JUDGES.get(name)()
    lines = (type(made).__doc__ or "").strip().split("\n\n")
    return {"name": name, "measures": made.measures, "description": " ".join(lines[0].split())}


def _print_rows(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    Console().print(table)


def _print_fields(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(fields, ensure_ascii=False))
        return
    import yaml

    known = {name: value for name, value in fields.items() if value not in (None, [], {})}
    typer.echo(yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=100).rstrip())
