"""`harness tasks|baselines list|show`: what can be named on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

tasks = typer.Typer(help="Prompt tasks and capability tasks.", no_args_is_help=True)
baselines = typer.Typer(help="Interventions and baselines.", no_args_is_help=True)

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
    print_rows(rows, as_json)


@tasks.command("show")
def show_task(name: Name, include: Include = None, as_json: Json = False) -> None:
    """Show one prompt task in full."""
    from harness.data.task import find_task

    print_fields(find_task(name, include or []).model_dump(mode="json"), as_json)


@baselines.command("list")
def list_baselines(include: Include = None, as_json: Json = False) -> None:
    """List what --intervention and --baselines take."""
    from harness.interventions.spec import list_variants

    specs = list_variants(include or []).values()
    print_rows(
        [
            {
                "name": s.name,
                "intervention": s.intervention,
                "experts": s.model_dump().get("experts") or "",
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

    print_fields(find_variant(name, include or []).model_dump(mode="json"), as_json)


def print_rows(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print rows of the same columns as a table, or as JSON."""
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


def print_fields(fields: dict[str, Any], as_json: bool) -> None:
    """Print fields as YAML, those without a value left out, or as JSON."""
    if as_json:
        typer.echo(json.dumps(fields, ensure_ascii=False))
        return
    import yaml

    known = {name: value for name, value in fields.items() if value not in (None, [], {})}
    typer.echo(yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=100).rstrip())
