"""`harness tasks|baselines list|show`: what can be named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.shared import Json, print_fields, print_rows

tasks = typer.Typer(help="Prompt tasks and capability tasks.", no_args_is_help=True)
baselines = typer.Typer(help="Interventions and baselines.", no_args_is_help=True)

Include = Annotated[list[Path] | None, typer.Option(help="Folder with more YAML files; may be repeated.")]
DataDir = Annotated[
    list[Path] | None, typer.Option(help="Folder with copies of public sets; may be repeated.")
]
Name = Annotated[str, typer.Argument(help="A name that `list` prints.")]


@tasks.command("list")
def list_tasks(include: Include = None, as_json: Json = False) -> None:
    """List prompt tasks, then groups of them and capability tasks."""
    from harness.capability.tasks import SETS, list_capability_tasks
    from harness.data import task
    from harness.data.group import list_groups

    prompt_tasks = [
        (spec.name, spec.kind, ", ".join(spec.roles), spec.description)
        for spec in task.list_tasks(include or [])
    ]
    groups = [
        (group.name, "group", f"{len(group.tasks)} tasks", group.description)
        for group in list_groups(include or [])
    ]
    capability_tasks = [
        (name, "capability", "lm-eval", "run with --capability")
        for name in list_capability_tasks(include or [])
    ]
    capability_tasks += [
        (name, "capability", f"{len(tasks)} tasks", ", ".join(tasks)) for name, tasks in SETS.items()
    ]
    columns = ("name", "kind", "roles", "description")
    rows = [dict(zip(columns, row, strict=True)) for row in [*prompt_tasks, *groups, *capability_tasks]]
    print_rows(rows, as_json)


@tasks.command("show")
def show_task(name: Name, include: Include = None, as_json: Json = False) -> None:
    """Show one task in full: a prompt task, a group or a capability task."""
    from harness.base.errors import BadInputError, nearest
    from harness.capability.tasks import SETS, list_capability_tasks
    from harness.data.group import GroupSpec, list_groups
    from harness.data.task import TaskSpec, list_tasks

    capability = list_capability_tasks(include or [])
    specs: dict[str, GroupSpec | TaskSpec] = {spec.name: spec for spec in list_tasks(include or [])}
    specs |= {group.name: group for group in list_groups(include or [])}
    if name in specs:
        print_fields(specs[name].model_dump(mode="json", by_alias=True), as_json)
    elif name in capability:
        print_fields(capability[name].record(), as_json)
    elif name in SETS:
        print_fields({"name": name, "kind": "capability", "tasks": list(SETS[name])}, as_json)
    else:
        raise BadInputError(f"unknown task '{name}': {nearest(name, [*specs, *capability, *SETS])}")


@tasks.command("check")
def check_tasks(
    names: Annotated[list[str], typer.Argument(help="Tasks or groups.")],
    include: Include = None,
    data_dir: Annotated[
        list[Path] | None, typer.Option(help="Folder with copies of public sets; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read the data of tasks without a model: rows, prompts, repeats, overlaps, control tokens, languages, columns."""
    from harness.pipeline.suite import check_suite

    rows = [row._asdict() for row in check_suite(names, include or [], data_dir or [])]
    # A line of a terminal has no room for where the rows came from, and for whose they are.
    print_rows(rows if as_json else [dict(list(row.items())[:-2]) for row in rows], as_json)


@tasks.command("path")
def write_tasks(
    names: Annotated[
        str | None, typer.Option("--tasks", help="Tasks or groups, comma-separated. [those of `harness run`]")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder, whose test prompts are asked, whatever its tasks.")
    ] = None,
    include: Include = None,
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
) -> None:
    """Write prompt tasks for lm-eval and print their folder: `lm_eval --include_path $(harness tasks path)`.

    They hold the prompts that `harness run` would test with, and are scored by the built-in judge.
    """
    from harness.base.errors import BadInputError
    from harness.pipeline.lm_eval_tasks import tasks_of_run, tasks_of_splits

    if run is not None and (names or include or data_dir or seed):
        raise BadInputError("--run: a run has its own tasks, data and seed; expected no other option")
    from harness.capability.prompt_tasks import write_prompt_tasks

    given = {} if names is None else {"tasks": [name.strip() for name in names.split(",") if name.strip()]}
    settings = {**given, "include": include or [], "data_dir": data_dir or [], "seed": seed}
    asked = tasks_of_splits(settings) if run is None else tasks_of_run(run)
    typer.echo(write_prompt_tasks(asked))


@baselines.command("list")
def list_baselines(include: Include = None, as_json: Json = False) -> None:
    """List what --intervention and --baselines take; `--baselines zoo` takes all published methods."""
    from harness.interventions.spec import list_variants

    rows = [
        {
            "name": spec.name,
            "intervention": spec.intervention,
            "experts": spec.model_dump().get("experts") or "",
            "description": spec.description,
        }
        for spec in list_variants(include or []).values()
    ]
    print_rows(rows, as_json)


@baselines.command("show")
def show_baseline(name: Name, include: Include = None, as_json: Json = False) -> None:
    """Show one baseline in full."""
    from harness.interventions.spec import find_variant

    print_fields(find_variant(name, include or []).shown(), as_json)
