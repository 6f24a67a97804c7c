"""Groups of tasks: one name on the command line for several, from tasks/groups/*.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from harness.base.content import yaml_files_by_name
from harness.base.errors import BadInputError
from harness.base.plugins import readable
from harness.base.schema import read_named_yaml


class GroupSpec(BaseModel):
    """One group, as its YAML file states it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """The name on the command line; the file is called like it."""
    description: str = Field(min_length=1)
    """One sentence on what the tasks are together."""
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of tasks, or of other groups."""


def list_groups(include: Sequence[Path] = ()) -> list[GroupSpec]:
    """Return every known group by name.

    Raises:
        BadInputError: a file does not follow the schema.
    """
    files = yaml_files_by_name("groups", include)
    return [*readable(files, lambda path: read_named_yaml(path, GroupSpec)).values()]


def expand(names: Sequence[str], include: Sequence[Path] = ()) -> list[str]:
    """Return the names with each group's tasks in its place; a task that comes twice counts once.

    Raises:
        BadInputError: a group has a task's name, or holds itself.
    """
    files = yaml_files_by_name("groups", include)
    tasks = yaml_files_by_name("tasks", include)

    def members(name: str, through: tuple[str, ...]) -> list[str]:
        if name not in files:
            return [name]
        if name in tasks:
            raise BadInputError(f"{files[name]}: name: '{name}' is a task's name too ({tasks[name]})")
        if name in through:
            raise BadInputError(
                f"{files[name]}: tasks: the group holds itself ({' > '.join((*through, name))})"
            )
        found = read_named_yaml(files[name], GroupSpec).tasks
        return [task for each in found for task in members(each, (*through, name))]

    return list(dict.fromkeys(task for name in names for task in members(name, ())))
