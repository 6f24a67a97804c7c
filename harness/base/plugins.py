"""Plugins: named things that other installed packages add through entry points.

A package names them under the groups of `KINDS` in its metadata (docs/plugins.md, examples/plugin). They are found in
the metadata alone; a plugin's code is imported when somebody asks for it by name.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from harness.base.errors import BadInputError, first_line
from harness.base.progress import say

T = TypeVar("T")

KINDS: Mapping[str, str] = {
    "harness.tasks": "task",
    "harness.baselines": "baseline",
    "harness.judges": "judge",
    "harness.interventions": "intervention kind",
    "harness.selection_methods": "selection method",
    "harness.objectives": "objective",
    "harness.metrics": "metric",
    "harness.engines": "engine",
    "harness.export_formats": "export format",
}
"""The groups of entry points, and what an entry of each is. Those of tasks and baselines name folders of YAML files."""

# A problem of a plugin that nobody asked for is one line per process.
say_once = functools.cache(say)


@dataclass(frozen=True)
class Plugin:
    """One entry point of a package.

    Attributes:
        group: of `KINDS`.
        name: the entry's; of a folder of YAML files it has no meaning.
        target: "module:attribute", or the folder as "package.folder".
        package: the distribution that has it, with its version.
    """

    group: str
    name: str
    target: str
    package: str

    def __str__(self) -> str:
        return f"plugin {self.package} ({self.target})"

    def load(self) -> object:
        """Import the object.

        Raises:
            BadInputError: it cannot be imported.
        """
        from pkgutil import resolve_name

        try:
            return resolve_name(self.target)
        except (Exception, SystemExit) as error:
            # Whatever somebody else's code raises, the end of a script too: it is named, and ends nothing else.
            raise broken(self, error) from error

    def folder(self) -> Path:
        """Return the folder of YAML files, without importing the package.

        Raises:
            BadInputError: there is none.
        """
        package, *below = self.target.split(".")
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            folder = Path(place).joinpath(*below)
            if folder.is_dir():
                return folder
        raise BadInputError(f"{self}: no such folder of {KINDS[self.group]}s")


def broken(plugin: Plugin, error: BaseException) -> BadInputError:
    """Return the error for a plugin whose code has raised another."""
    what = f"{KINDS[plugin.group]} '{plugin.name}'"
    return BadInputError(f"{what} of {plugin} does not work: {type(error).__name__}: {first_line(error)}")


@functools.cache
def plugins_of(group: str) -> tuple[Plugin, ...]:
    """Return a group's plugins, sorted by name and package."""
    found = (plugin for plugin in all_plugins() if plugin.group == group)
    return tuple(sorted(found, key=lambda plugin: (plugin.name, plugin.package)))


@functools.cache
def all_plugins() -> tuple[Plugin, ...]:
    """Return the plugins of all groups; every installed package's metadata is looked at."""
    # 20 ms that no help text needs.
    from importlib.metadata import entry_points

    known = entry_points()
    return tuple(
        Plugin(group, entry.name, entry.value, f"{entry.dist.name} {entry.dist.version}")
        for group in KINDS
        for entry in known.select(group=group)
        if entry.dist is not None
    )


def error_in_plugin(error: BaseException) -> str | None:
    """Return a line on an error that came up in a plugin's code; None where no plugin had a part in it."""
    packages = {plugin.target.partition(":")[0].partition(".")[0]: plugin.package for plugin in all_plugins()}
    names = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = next((name for name in reversed(names) if name.partition(".")[0] in packages), None)
    if module is None:
        return None
    package = packages[module.partition(".")[0]]
    return f"error in plugin {package} ({module}): {type(error).__name__}: {first_line(error)}; --debug shows where"


def plugin_folders(group: str) -> dict[Path, Plugin]:
    """Return the folders of YAML files that plugins add; one that is not there is named on stderr."""
    folders: dict[Path, Plugin] = {}
    for plugin in plugins_of(group):
        try:
            folders.setdefault(plugin.folder(), plugin)
        except BadInputError as error:
            say_once(f"left out: {error}")
    return folders


def plugin_with(path: Path) -> Plugin | None:
    """Return the plugin that a YAML file comes from; None for a file of the harness or of the user."""
    for group in ("harness.tasks", "harness.baselines"):
        for folder, plugin in plugin_folders(group).items():
            if path.is_relative_to(folder):
                return plugin
    return None


def readable(files: Mapping[str, Path], read: Callable[[Path], T]) -> dict[str, T]:
    """Return what each file holds, by name and sorted; a plugin's broken file is named on stderr and left out.

    Raises:
        BadInputError: a file of the harness or of the user cannot be read.
    """
    contents: dict[str, T] = {}
    for name, path in sorted(files.items()):
        try:
            contents[name] = read(path)
        except BadInputError as error:
            plugin = plugin_with(path)
            if plugin is None:
                raise
            say_once(f"left out: {plugin}: {error}")
    return contents
