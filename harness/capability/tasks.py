"""Our lm-eval task files: their names, the tasks they replace, and the names of their data files.

A file is lm-eval YAML whose texts may hold three placeholders: `{content_dir}` (the YAML file's own
folder), `{data_dir}/PATH` (PATH in the first --data-dir that has it) and `{prepared_dir}` (where the tables of
`metadata.prepare` are written). The harness's own settings are under lm-eval's free key `metadata`.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from harness.base.content import content_folder
from harness.base.documents import parse_yaml
from harness.base.errors import BadInputError, nearest
from harness.base.files import read_text, sha256
from harness.base.fingerprint import fingerprint
from harness.base.plugins import plugin_folders, readable
from harness.base.schema import validated

# Names for several of lm-eval's tasks, which need a hub or lm-eval's cache. None executes code that a model wrote.
SETS: dict[str, tuple[str, ...]] = {
    "quick": ("mmlu", "gsm8k", "ifeval"),
    "standard": ("mmlu", "gsm8k", "ifeval", "arc_challenge", "hellaswag", "truthfulqa_mc2"),
}

WRITTEN = frozenset({"gsm8k", "ifeval"})
"""Of the tasks of `SETS`, those that a model writes an answer to."""
LONGEST_WRITTEN = 1024
"""Tokens that such an answer may take at least: a chat model explains before it answers. Reasoning is apart."""

_DATA_FILE = re.compile(r"\{data_dir\}/([^\s\"',\]}]+)")
_OWN_FILE = re.compile(r"\{content_dir\}/([^\s\"',\]}]+)")


class Preparation(BaseModel):
    """A JSONL table made of the user's files before lm-eval reads it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    """Its name in `{prepared_dir}`."""
    rows: dict[str, str] = Field(min_length=1)
    """Tables, by the name of their source; their rows are taken in turn, so that --limit meets all of them."""
    source_column: str | None = None
    """Column that receives the source's name."""
    labels: dict[str, str] = {}
    """Column name to a file of integers, one per line, that belongs to the rows line by line."""
    integers: list[str] = []
    """Columns to turn from text into integers."""


class TaskNotes(BaseModel):
    """The harness's settings in a task file's `metadata`; lm-eval allows any key there."""

    model_config = ConfigDict(frozen=True)

    version: int | float | str = 1
    description: str = ""
    licence: str | None = None
    citation: str | None = None
    metric: str | None = None
    """The metric that is reported; the first of `metric_list` otherwise."""
    apply_chat_template: bool = False
    """Whether each item is sent as a chat message."""
    stands_in_for: str | None = None
    """The lm-eval task that this one replaces when its data files are under --data-dir."""
    prepare: list[Preparation] = []


@dataclass(frozen=True, slots=True)
class CapabilityTask:
    """One of our lm-eval task files."""

    name: str
    path: Path
    notes: TaskNotes
    members: tuple[str, ...] = ()
    """Names of the tasks of a group."""
    included: tuple[Path, ...] = ()
    """The files that it takes settings from with `include`, those that they include too."""

    def text(self) -> str:
        """Return the content of the file and of those that it includes."""
        return "\n".join(path.read_text(encoding="utf-8") for path in (self.path, *self.included))

    def record(self) -> dict[str, Any]:
        """Return what a user may want to know of the task, as JSON."""
        return {
            "name": self.name,
            "kind": "capability",
            **self.notes.model_dump(mode="json", exclude={"prepare"}),
            "members": list(self.members),
            "files": self.files(),
            "path": str(self.path),
        }

    def files(self) -> list[str]:
        """Return the files that the task needs, relative to a --data-dir."""
        return list(dict.fromkeys(_DATA_FILE.findall(self.text())))

    def missing_file(self, data_dirs: Sequence[Path]) -> str | None:
        """Return the first file that the task needs and no --data-dir has."""
        return next((file for file in self.files() if find_data_file(file, data_dirs) is None), None)

    def fingerprint(self, data_dirs: Sequence[Path]) -> str:
        """Return a hash of the task file and of every data file that it reads."""
        text = self.text()
        given = (find_data_file(file, data_dirs) for file in self.files())
        beside = (self.path.parent / file for file in _OWN_FILE.findall(text))
        return fingerprint([text, *(sha256(path) for path in [*given, *beside] if path and path.is_file())])


def list_capability_tasks(include: Sequence[Path] = ()) -> dict[str, CapabilityTask]:
    """Return our capability tasks by name; those of `include` win over shipped ones of the same name.

    An included folder holds them in `capability/` or `tasks/capability/`.

    Raises:
        BadInputError: a file is not YAML, names no task, or its `metadata` is invalid.
    """
    places = [place for path in include for place in (path / "capability", path / "tasks" / "capability")]
    tasks: dict[str, CapabilityTask] = {}
    of_plugins = (folder / "capability" for folder in plugin_folders("harness.tasks"))
    for place in [*places, content_folder("tasks") / "capability", *of_plugins]:
        files = {path.name: path for path in place.glob("*.yaml")}
        for path, task in readable(files, lambda path: (path, _read(path))).values():
            known = tasks.setdefault(task.name, task)
            if known is not task and known.path.parent == place:
                raise BadInputError(f"{path}: task '{task.name}' is also defined in {known.path.name}")
    return tasks


def resolve_capability_tasks(
    names: Iterable[str], include: Sequence[Path] = (), data_dirs: Sequence[Path] = ()
) -> dict[str, CapabilityTask | None]:
    """Return what each name means: one of our tasks by its own name, or None for lm-eval's task.

    The names are kept in order and without repeats; one of `SETS` means its members. A name that one of our tasks
    `stands_in_for` (such as "piqa" for `piqa_local`) means ours when all its data files are under `data_dirs`, and
    lm-eval's otherwise.

    Raises:
        BadInputError: an unknown name, a data file that no --data-dir has, or a task beside its group.
    """
    ours = list_capability_tasks(include)
    stand_ins = {task.notes.stands_in_for: task for task in ours.values() if task.notes.stands_in_for}
    resolved: dict[str, CapabilityTask | None] = {}
    for name in (member for asked in names for member in SETS.get(asked, (asked,))):
        task = ours.get(name)
        if task is None and name in stand_ins and stand_ins[name].missing_file(data_dirs) is None:
            task = stand_ins[name]
        if task is None:
            _check_known_to_lm_eval(name, [*ours, *stand_ins, *SETS])
            resolved[name] = None
            continue
        for member in with_members(task, ours):
            missing = member.missing_file(data_dirs)
            if missing is not None:
                searched = ", ".join(map(str, data_dirs)) or "none given"
                raise BadInputError(
                    f"capability task '{member.name}': no file {missing} under --data-dir ({searched})"
                )
        resolved[task.name] = task
    for name, task in resolved.items():
        if task is not None and (twice := _inside(task, ours) & resolved.keys()):
            raise BadInputError(
                f"capability tasks '{min(twice)}' and '{name}': the first is in the second, which measures it too; "
                "expected one of them"
            )
    return resolved


def written_of_sets(names: Iterable[str]) -> set[str]:
    """Return the tasks of the named sets that a model writes an answer to: a chat model is asked them as chats."""
    return {member for name in names for member in SETS.get(name, ())} & WRITTEN


def _inside(task: CapabilityTask, ours: Mapping[str, CapabilityTask]) -> set[str]:
    """Return the names of all tasks and groups in a group."""
    return {name for each in with_members(task, ours) for name in each.members}


def with_members(task: CapabilityTask, ours: Mapping[str, CapabilityTask]) -> list[CapabilityTask]:
    """Return a task, and for a group also those of its tasks and groups that are ours."""
    members = [ours[name] for name in task.members if name in ours]
    return [task, *(deeper for member in members for deeper in with_members(member, ours))]


def find_data_file(file: str, data_dirs: Sequence[Path]) -> Path | None:
    """Return the path of `file` in the first folder that has it."""
    return next((folder / file for folder in data_dirs if (folder / file).is_file()), None)


def fill_placeholders(text: str, task: CapabilityTask, data_dirs: Sequence[Path], prepared: Path) -> str:
    """Replace the placeholders in a task file's text by absolute paths."""

    def data_file(match: re.Match[str]) -> str:
        path = find_data_file(match[1], data_dirs)
        return match[0] if path is None else str(path.resolve())

    text = text.replace("{content_dir}", str(task.path.parent.resolve()))
    return _DATA_FILE.sub(data_file, text).replace("{prepared_dir}", str(prepared))


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's `!function module.name` as plain text."""


_Loader.add_multi_constructor("!", lambda loader, _suffix, node: str(node.value))


def _read(path: Path) -> CapabilityTask:
    content = parse_yaml(read_text(path, "YAML"), path, _Loader)
    content = content if isinstance(content, dict) else {}
    name = content.get("group") or content.get("task")
    if not isinstance(name, str):
        raise BadInputError(f"{path}: task: missing, expected the name of an lm-eval task or group")
    notes = validated(content.get("metadata") or {}, f"{path}: metadata", TaskNotes)
    members = content.get("task") if "group" in content else ()
    inside = [_name_of(item) for item in members] if isinstance(members, list) else []
    included = tuple(dict.fromkeys(_included(content, path, (path,))))
    return CapabilityTask(name, path, notes, tuple(item for item in inside if item is not None), included)


def _name_of(member: Any) -> str | None:
    """Return the name of a group's task or group, which may be written out in place."""
    name = (member.get("group") or member.get("task")) if isinstance(member, dict) else member
    return name if isinstance(name, str) else None


def _included(content: Any, path: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the files that a task file names with `include`, and those that these include."""
    if not isinstance(content, dict):
        return
    inline = content.get("task")
    for member in inline if isinstance(inline, list) else []:
        if isinstance(member, dict) and "include" in member:
            raise BadInputError(
                f"{path}: task: '{_name_of(member)}' has include, which lm-eval reads at the top of a file alone: "
                "write the task as a file of its own"
            )
    names = content.get("include", [])
    for name in names if isinstance(names, list) else [names]:
        file = path.parent / str(name)
        if file in above:
            raise BadInputError(f"{path}: include: '{name}' includes itself")
        if not file.is_file():
            raise BadInputError(f"{path}: include: no file '{name}' in {path.parent}")
        yield file
        yield from _included(parse_yaml(read_text(file, "YAML"), file, _Loader), file, (*above, file))


def _check_known_to_lm_eval(name: str, ours: Sequence[str]) -> None:
    # Importing lm-eval and indexing its 14,000 files takes 20 s; a look for the name in them takes 3 s.
    names = _lm_eval_names()
    if name not in names:
        close = nearest(name, ours)
        if not close.startswith("did you mean"):
            close = nearest(name, [*ours, *names])
        hint = close if close.startswith("did you mean") else f"ours: {', '.join(sorted(ours))}"
        raise BadInputError(f"unknown capability task '{name}': {hint}")


@functools.cache
def _lm_eval_names() -> set[str]:
    """Return every word in lm-eval's task files that could name a task, a group or a tag."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise BadInputError("lm-eval is not installed: pip install lm-eval")
    names: set[str] = set()
    for path in (Path(spec.submodule_search_locations[0]) / "tasks").rglob("*.yaml"):
        names.update(_NAME.findall(path.read_text(encoding="utf-8", errors="replace")))
    return names


_NAME = re.compile(r"^\s*(?:[\"']?(?:task|group|tag)[\"']?\s*:|-)\s*[\"']?([\w.\-]+)[\"']?\s*$", re.MULTILINE)
