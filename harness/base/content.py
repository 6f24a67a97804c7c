"""Where the folders tasks/, baselines/ and reports/ are.

A wheel carries them as harness/_content/, a checkout reads them in place. Folders named with `--include`
come first, so a user's YAML file can stand in for one of ours. Those of plugins come last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from harness.base.errors import BadInputError
from harness.base.plugins import plugin_folders, plugin_with, say_once

Folder = Literal["tasks", "groups", "baselines", "zoo", "reports", "judges"]

# Groups are of tasks; published methods are baselines; judges lie beside the code that reads them.
_PLACES = {"groups": "tasks/groups", "zoo": "baselines/zoo", "judges": "harness/judges/presets"}
_PLUGINS: Mapping[Folder, tuple[str, str]] = {
    "tasks": ("harness.tasks", ""),
    "groups": ("harness.tasks", "groups"),
    "baselines": ("harness.baselines", ""),
}

_PACKAGE = Path(__file__).resolve().parents[1]


def content_folder(folder: Folder) -> Path:
    """Return the folder that this installation reads `folder` from."""
    place = _PLACES.get(folder, folder)
    carried = _PACKAGE / "_content" / place
    return carried if carried.is_dir() else _PACKAGE.parent / place


def yaml_files(folder: Folder, include: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield the YAML files of a folder, those of `include` first and those of plugins last.

    An included folder holds tasks, groups, baselines and judges in sub-folders of these names, or side by side: the
    fields `intervention`, `tasks` and `form`, `measures` or `extends` tell a baseline, a group and a judge from a task.

    Raises:
        BadInputError: an included folder does not exist.
    """
    for place in include:
        if not place.is_dir():
            raise BadInputError(f"--include: no folder {place}")
        yield from sorted((place / folder).glob("*.yaml"))
        yield from (path for path in sorted(place.glob("*.yaml")) if _kind(path) == folder)
    yield from sorted(content_folder(folder).glob("*.yaml"))
    if folder == "baselines":
        yield from sorted(content_folder("zoo").glob("*.yaml"))
    if folder in _PLUGINS:
        group, below = _PLUGINS[folder]
        for place in plugin_folders(group):
            yield from sorted((place / below).glob("*.yaml"))


def yaml_files_by_name(folder: Folder, include: Sequence[Path] = ()) -> dict[str, Path]:
    """Return the YAML files of a folder by name; of two with one name, the first in the order of `yaml_files` counts.

    A plugin's file that does not count is named on stderr.

    Raises:
        BadInputError: included folders hold two files with one name, or do not exist.
    """
    files: dict[str, Path] = {}
    for path in yaml_files(folder, include):
        first = files.get(path.stem, path)
        if _is_below(first, include) and _is_below(path, include) and not first.samefile(path):
            raise BadInputError(
                f"--include: two {folder} are called '{path.stem}', expected one: {first} and {path}"
            )
        if files.setdefault(path.stem, path) != path and (plugin := plugin_with(path)) is not None:
            say_once(f"{path.name} of {plugin} is called like {files[path.stem]}, which is used")
    return files


def _is_below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _kind(path: Path) -> Folder:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    keys = {line.partition(":")[0] for line in lines}
    if "intervention" in keys:
        return "baselines"
    if keys & {"form", "extends", "measures"}:
        return "judges"
    return "groups" if "tasks" in keys else "tasks"
