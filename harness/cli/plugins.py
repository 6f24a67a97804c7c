"""`harness plugins list|check`: what other installed packages add, and whether it works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from harness.base.errors import BadInputError
from harness.cli.shared import Json, print_json, print_rows

if TYPE_CHECKING:
    from harness.base.plugins import Plugin
    from harness.base.registry import Registry

plugins = typer.Typer(help="What other installed packages add.", no_args_is_help=True)

_REGISTRIES = {
    "harness.judges": "harness.judges.base:JUDGES",
    "harness.interventions": "harness.interventions.base:INTERVENTIONS",
    "harness.selection_methods": "harness.experts.select:METHODS",
    "harness.objectives": "harness.training.objectives:OBJECTIVES",
    "harness.metrics": "harness.runs.metrics:METRICS",
    "harness.engines": "harness.engines.base:ENGINES",
    "harness.export_formats": "harness.export.export:FORMATS",
}


class _Row(NamedTuple):
    """A named thing of a plugin; what is wrong with it, "" where nothing is known to be."""

    kind: str
    name: str
    package: str
    target: str
    problem: str


@plugins.command("list")
def list_plugins(as_json: Json = False) -> None:
    """List what plugins add, from the packages' metadata: their code is not imported."""
    _print(list(_rows(is_checked=False)), as_json)


@plugins.command("check")
def check_plugins(as_json: Json = False) -> int:
    """Import every plugin and read its files: exit code 2 if one does not work."""
    rows = list(_rows(is_checked=True))
    _print(rows, as_json)
    return 2 if any(row.problem for row in rows) else 0


def _print(rows: list[_Row], as_json: bool) -> None:
    if rows and not as_json:
        # A line of a terminal has no room for where a thing is; what is wrong with one is a line of its own.
        print_rows([{"kind": row.kind, "name": row.name, "package": row.package} for row in rows], as_json)
        for row in rows:
            if row.problem:
                typer.echo(f"{row.kind} {row.name}: {row.problem}")
    elif as_json:
        print_json([row._asdict() for row in rows])
    else:
        typer.echo("no plugin is installed")


def _rows(is_checked: bool) -> Iterator[_Row]:
    from harness.base.plugins import KINDS, plugins_of

    for group in KINDS:
        for plugin in plugins_of(group):
            if group in _REGISTRIES:
                yield _of_registry(plugin, is_checked)
            else:
                yield from _of_folder(plugin, is_checked)


def _of_registry(plugin: Plugin, is_checked: bool) -> _Row:
    from pkgutil import resolve_name

    from harness.base.plugins import KINDS

    # The registries of kinds that no plugin adds to are not imported: that of objectives takes torch.
    registry: Registry[Any] = resolve_name(_REGISTRIES[plugin.group])
    problem = registry.collisions.get(plugin.name, "")
    if is_checked and not problem:
        problem = _problem(lambda: registry.get(plugin.name))
    return _Row(KINDS[plugin.group], plugin.name, plugin.package, plugin.target, problem)


def _of_folder(plugin: Plugin, is_checked: bool) -> Iterator[_Row]:
    from harness.base.content import Folder, yaml_files_by_name
    from harness.base.plugins import KINDS

    try:
        folder = plugin.folder()
    except BadInputError as error:
        yield _Row(KINDS[plugin.group], plugin.name, plugin.package, plugin.target, str(error))
        return
    places: dict[Folder, Path] = {"baselines": folder}
    if plugin.group == "harness.tasks":
        places = {"tasks": folder, "groups": folder / "groups"}
    for kind, place in places.items():
        used = yaml_files_by_name(kind)
        for path in sorted(place.glob("*.yaml")):
            problem = "" if used[path.stem] == path else f"called like {used[path.stem]}, which is used"
            if is_checked and not problem:
                problem = _problem(lambda kind=kind, path=path: _read(kind, path))
            yield _Row(kind.removesuffix("s"), path.stem, plugin.package, str(path), problem)


def _read(kind: str, path: Path) -> object:
    from harness.base.schema import read_named_yaml
    from harness.data.group import GroupSpec
    from harness.data.task import read_task
    from harness.interventions.spec import read_variant

    if kind == "groups":
        return read_named_yaml(path, GroupSpec)
    return read_task(path) if kind == "tasks" else read_variant(path)


def _problem(work: Any) -> str:
    try:
        work()
    except BadInputError as error:
        return str(error)
    return ""
