"""What a prompt task is: the schema of tasks/*.yaml (docs/tasks.md), and how tasks are found by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from harness.base.content import yaml_files_by_name
from harness.base.errors import BadInputError, nearest
from harness.base.plugins import readable
from harness.base.schema import read_named_yaml
from harness.data.conversation import ChatRole, Turn, checked
from harness.data.tables import Reader
from harness.data.where import Column, Conditions

Kind = Literal["harmful", "benign"]
Role = Literal["identify", "train", "test"]
ROLES: tuple[Role, ...] = ("identify", "train", "test")


class AskedTask(NamedTuple):
    """A task as a run asks it: as it is, or with the beginning of a compliant answer given (a forced start).

    Forced starts are a task of their own, with files and figures named TASK@forced.
    """

    name: str
    forced: bool = False

    def __str__(self) -> str:
        return f"{self.name}{_FORCED}" if self.forced else self.name

    @classmethod
    def read(cls, name: str) -> AskedTask:
        """Return the task that a file or a figure names."""
        return cls(name.removesuffix(_FORCED), name.endswith(_FORCED))


_FORCED = "@forced"


def paired_benign(specs: Sequence[TaskSpec]) -> list[str]:
    """Return the benign tasks whose prompts are paired with those of a harmful one, and so on its topics."""
    harmful = [spec for spec in specs if spec.kind == "harmful"]
    return [
        spec.name
        for spec in specs
        if spec.kind == "benign"
        and any(other.name == spec.pairs_with or spec.name == other.pairs_with for other in harmful)
    ]


def _relative(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in path:
        raise ValueError("expected a relative path with forward slashes and without '..'")
    return path


def _without_repeats(roles: tuple[Role, ...]) -> tuple[Role, ...]:
    if len(set(roles)) < len(roles):
        raise ValueError("a role is named twice")
    return tuple(role for role in ROLES if role in roles)


RelativePath = Annotated[str, AfterValidator(_relative)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Hub(_Part):
    """A data set on the Hugging Face hub, read through `datasets`."""

    path: str = Field(min_length=1)
    """The data set's id."""
    name: str | None = None
    """Its configuration, where it has several."""
    split: str
    """Its split."""
    revision: str | None = None
    """A commit, tag or branch; what it resolved to is recorded."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Columns that are called otherwise on the hub: hub name to the name this task uses."""
    gated: bool = False
    """Whether the hub asks for a login and for the data set's terms to be accepted."""
    confirmed: bool = True
    """False where whoever wrote the file has not seen the data set under this id."""


class Source(_Part):
    """Where a task's rows are: `package_files`, or `files` and `hub`, of which files win."""

    hub: Hub | None = None
    """Read when `files` are under no data folder."""
    files: tuple[RelativePath, ...] = ()
    """CSV, TSV, JSON, JSONL or Parquet files under a `--data-dir`; several are read one after another."""
    package_files: tuple[RelativePath, ...] = ()
    """The same, shipped beside the YAML file."""
    reader: Reader = Reader()
    """How the files are read, where it is not as usual."""

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        if bool(self.package_files) == bool(self.hub or self.files):
            raise ValueError("expected either package_files, or hub, files or both of these two")
        return self


class TurnText(_Part):
    """How a row becomes one turn of a conversation."""

    role: ChatRole
    """Who speaks."""
    content: str
    """Text, with columns in braces or without."""

    @model_validator(mode="after")
    def _plain_columns(self) -> TurnText:
        _columns(self.content)
        return self


class PromptText(_Part):
    """How a row becomes a prompt: one column, a template over columns, or the turns of a conversation."""

    column: Column | None = None
    """The column that holds the prompt; `turns[0]` is the first item of a column of lists."""
    template: str | None = None
    """Text with columns in braces, such as "{question} Answer in one word."."""
    messages: Column | tuple[TurnText, ...] | None = None
    """The column that holds a conversation as chat messages, or each turn with its role and a template."""
    optional: tuple[Column, ...] = ()
    """Columns of the template that may be empty, such as a context that some rows have."""

    @model_validator(mode="after")
    def _one_way(self) -> PromptText:
        if sum(way is not None for way in (self.column, self.template, self.messages)) != 1:
            raise ValueError("expected exactly one of column, template and messages")
        if self.template is not None and not _columns(self.template):
            raise ValueError("template: expected at least one column in braces")
        if isinstance(self.messages, tuple):
            _check_turns(self.messages)
        for column in self.optional:
            if column not in self.columns:
                raise ValueError(f"optional: expected columns of the template, found '{column}'")
        if set(self.optional) >= set(self.columns):
            raise ValueError("optional: expected at least one column that may not be empty")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the prompt is made of."""
        if isinstance(self.messages, tuple):
            return tuple(dict.fromkeys(name for turn in self.messages for name in _columns(turn.content)))
        if self.template is not None:
            return _columns(self.template)
        return (self.messages or self.column or "",)


def _columns(template: str) -> tuple[str, ...]:
    """Return the columns that a template names in braces."""
    names = []
    for _, name, specification, conversion in Formatter().parse(template):
        if name is None:
            continue
        # `{row.x}` and `{row[x]}` would reach into Python objects.
        if not name or specification or conversion or set(name) & set(".[]") or name.isdecimal():
            raise ValueError(f"template: expected column names alone in braces, found {{{name}}}")
        names.append(name)
    return tuple(names)


def _check_turns(turns: tuple[TurnText, ...]) -> None:
    try:
        checked([Turn(turn.role, turn.content) for turn in turns])
        if not any(_columns(turn.content) for turn in turns):
            raise ValueError("expected at least one column in braces")
    except ValueError as error:
        raise ValueError(f"messages: {error}") from None


class Tags(_Part):
    """Which words tag a prompt, so that rates of several tasks can be read by kind of prompt."""

    column: Column
    """The column that holds a tag, or a list of them; a row without any has no tags."""
    rename: dict[str, str] = Field(default_factory=dict)
    """What this data set's words are called here, such as "homonyms: homonym"; others stay."""


class TaskSpec(_Part):
    """One prompt task, as its YAML file states it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """The name on the command line and in results; the file is called like it."""
    version: int = Field(default=1, ge=1)
    """Raised when results before and after a change of this file can't be compared."""
    kind: Kind
    """Whether a refusal is what is wanted (harmful) or a false refusal (benign)."""
    description: str = Field(min_length=1)
    """One sentence on what is asked."""
    source: Source
    """Where the rows are."""
    prompt: PromptText
    """How a row becomes a prompt."""
    where: Conditions = ()
    """Which rows to keep: one condition, or several that all hold; all rows without it."""
    id_column: Column | None = None
    """Unique ids; without it, the row's number in the source, counted from 0 before `where`."""
    category_column: Column | None = None
    """What a prompt is about."""
    tags: Tags | None = None
    """Words for the kind of prompt, such as homonym or fiction; reports show rates by them."""
    pair_column: Column | None = None
    """Matched pairs: prompts with the same value stay in one split."""
    pairs_with: str | None = None
    """The task whose pair values mean the same, such as a harmful task's benign twin."""
    split_column: Column | None = None
    """A declared split per row: test, train or identify."""
    roles: Annotated[tuple[Role, ...], Field(min_length=1), AfterValidator(_without_repeats)] = ROLES
    """What the prompts may serve for."""
    max_new_tokens: int = Field(default=64, ge=1)
    """The longest answer, in tokens, unless a run says otherwise."""
    size: int | None = Field(default=None, ge=1)
    """How many prompts the public copy has, after `where`."""
    licence: str = Field(min_length=1)
    """The licence of the data."""
    terms: str | None = None
    """What the licence forbids or asks for, in one clause."""
    citation: str = Field(min_length=1)
    """Whom to cite."""

    _folder: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _pairs_need_a_column(self) -> TaskSpec:
        if self.pairs_with is not None and self.pair_column is None:
            raise ValueError("pairs_with: expected pair_column beside it")
        return self

    @property
    def folder(self) -> Path | None:
        """The folder of the YAML file, where `package_files` are; None for a task made in code."""
        return self._folder

    def located_in(self, folder: Path) -> TaskSpec:
        """Return this task as one whose package files are in `folder`."""
        copy = self.model_copy()
        copy._folder = folder
        return copy


def read_task(path: Path) -> TaskSpec:
    """Read one task file.

    Raises:
        BadInputError: the file does not follow the schema, or is not called like its task.
    """
    return read_named_yaml(path, TaskSpec).located_in(path.parent)


def list_tasks(include: Sequence[Path] = ()) -> list[TaskSpec]:
    """Return every known task by name; of two files with one name, that of `include` counts.

    Raises:
        BadInputError: a task file does not follow the schema.
    """
    return [*readable(yaml_files_by_name("tasks", include), read_task).values()]


def find_task(name: str, include: Sequence[Path] = ()) -> TaskSpec:
    """Return the task called `name`.

    Raises:
        BadInputError: there is none (the nearest is named), its file does not follow the schema, or it pairs with a
            task that is not there.
    """
    files = yaml_files_by_name("tasks", include)
    if name not in files:
        known = [*files, *yaml_files_by_name("groups", include)]
        raise BadInputError(f"unknown task '{name}': {nearest(name, known)}")
    task = read_task(files[name])
    if task.pairs_with is not None and task.pairs_with not in files:
        raise BadInputError(
            f"{files[name]}: pairs_with: unknown task '{task.pairs_with}', {nearest(task.pairs_with, files)}"
        )
    return task
