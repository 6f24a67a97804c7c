"""From a task to its prompts: rows from the package, a data folder or the hub, each checked."""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from harness.base.errors import BadInputError, nearest
from harness.base.files import full_disk_named, sha256
from harness.data.conversation import Turn, Turns, checked, read_messages, transcript
from harness.data.prompts import Prompt, PromptSet, Resolved
from harness.data.tables import Reader, Row, read_table
from harness.data.task import ROLES, Hub, Role, TaskSpec
from harness.data.where import Where

# A small number: one of many digits would be no place in a list.
_ITEM = re.compile(r"(?P<column>.+)\[\d{1,4}\]")
_COLUMN_FIELDS = ("id_column", "category_column", "pair_column", "split_column")


class HubUnreachableError(BadInputError):
    """The hub did not answer."""


def load_task(spec: TaskSpec, data_dirs: Sequence[Path] = (), *, ask_hub: bool = True) -> PromptSet:
    """Read a task's prompts: from its package files, else from a data folder, else from the hub.

    Args:
        spec: the task.
        data_dirs: folders searched for `source.files`, the first hit of each file wins.
        ask_hub: False where the hub is known not to answer.

    Raises:
        BadInputError: the rows can't be had, a column is missing, no row is left, an id is given twice, or
            a prompt is empty.
    """
    for folder in data_dirs:
        if not folder.is_dir():
            raise BadInputError(f"--data-dir: no folder {folder}")
    source = spec.source
    if source.package_files:
        rows, resolved = _package_rows(spec)
    else:
        files = _files_under(source.files, data_dirs)
        if len(files) == len(source.files) > 0:
            name, path = next(iter(files.items()))
            rows, resolved = _file_rows(
                "files", path.parents[len(Path(name).parts) - 1], files, source.reader
            )
        elif files:
            missing = next(name for name in source.files if name not in files)
            raise BadInputError(
                f"task {spec.name}: source.files: {missing} is under no --data-dir, though others are"
            )
        elif source.hub is not None:
            if not ask_hub:
                raise _no_hub(spec, source.hub, "the hub cannot be reached")
            rows, resolved = _hub_rows(spec, source.hub)
        else:
            searched = ", ".join(str(folder) for folder in data_dirs) or "none was given"
            raise BadInputError(
                f"task {spec.name}: source.files: {source.files[0]} is under no --data-dir ({searched})"
            )
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return PromptSet(spec, _prompts(spec, rows, columns, resolved), resolved, len(rows), columns)


def load_tasks(specs: Sequence[TaskSpec], data_dirs: Sequence[Path] = ()) -> tuple[PromptSet, ...]:
    """Read the prompts of several tasks; what cannot be had is said of all of them at once.

    Raises:
        BadInputError: as `load_task`.
    """
    sets, problems = [], []
    is_reachable = True
    for spec in specs:
        try:
            sets.append(load_task(spec, data_dirs, ask_hub=is_reachable))
        except HubUnreachableError as error:
            # Half a minute of attempts each: once says enough.
            is_reachable = False
            problems.append(str(error))
        except BadInputError as error:
            problems.append(str(error))
    if len(problems) == 1:
        raise BadInputError(problems[0])
    if problems:
        raise BadInputError("\n  ".join([f"the data of {len(problems)} tasks cannot be had:", *problems]))
    return tuple(sets)


def _package_rows(spec: TaskSpec) -> tuple[list[Row], Resolved]:
    if spec.folder is None:
        raise BadInputError(f"task {spec.name}: source.package_files: the task was not read from a folder")
    files = {name: spec.folder / name for name in spec.source.package_files}
    for name, path in files.items():
        if not path.is_file():
            raise BadInputError(f"task {spec.name}: source.package_files: no file {name} in {spec.folder}")
    return _file_rows("package", spec.folder, files, spec.source.reader)


def _files_under(names: Sequence[str], data_dirs: Sequence[Path]) -> dict[str, Path]:
    places = {name: [folder / name for folder in data_dirs if (folder / name).is_file()] for name in names}
    return {name: paths[0] for name, paths in places.items() if paths}


def _file_rows(
    kind: Literal["package", "files"], folder: Path, files: dict[str, Path], reader: Reader
) -> tuple[list[Row], Resolved]:
    rows = [row for path in files.values() for row in read_table(path, reader)]
    return rows, Resolved(kind, str(folder), sha256={name: sha256(path) for name, path in files.items()})


def _hub_rows(spec: TaskSpec, hub: Hub) -> tuple[list[Row], Resolved]:
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    # Every attempt would be a line; the last error says it.
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        builder = datasets.load_dataset_builder(hub.path, hub.name, revision=hub.revision)
        with full_disk_named(Path(datasets.config.HF_DATASETS_CACHE)):
            builder.download_and_prepare()
        table = builder.as_dataset(split=hub.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        kind = HubUnreachableError if isinstance(error, ConnectionError) else BadInputError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _no_hub(spec, hub, reason, kind) from error
    finally:
        hub_logging.set_verbosity(verbosity)
    for column in hub.rename:
        _check_column(spec, "source.hub.rename", column, table.column_names, hub.path)
    rows: list[Row] = table.rename_columns(hub.rename).to_list()
    return rows, Resolved("hub", hub.path, revision=_commit(builder.hash) or hub.revision)


def _no_hub(
    spec: TaskSpec, hub: Hub, reason: str, kind: type[BadInputError] = BadInputError
) -> BadInputError:
    message = f"task {spec.name}: source.hub: {hub.path} can't be had ({reason})"
    if hub.gated:
        message += f"; accept its terms at https://huggingface.co/datasets/{hub.path} and set HF_TOKEN"
    if not hub.confirmed:
        message += "; its id is not confirmed"
    if spec.source.files:
        message += f"; give --data-dir with a folder that holds {', '.join(spec.source.files)}"
    return kind(message)


def _commit(build: str | None) -> str | None:
    """Return the commit that was read: `datasets` names a build of a hub's data set by it."""
    return build if re.fullmatch("[0-9a-f]{40}", build or "") else None


def _check_column(spec: TaskSpec, field: str, column: str, known: Sequence[str], origin: str) -> None:
    if column not in known:
        raise BadInputError(
            f"task {spec.name}: {field}: no column '{column}' in {origin}, {nearest(column, known)}"
        )


def _prompts(spec: TaskSpec, rows: list[Row], known: Sequence[str], resolved: Resolved) -> tuple[Prompt, ...]:
    origin = ", ".join(resolved.sha256) or resolved.origin
    if not rows:
        raise BadInputError(f"task {spec.name}: no rows in {origin}")
    fields = [
        *(("prompt", column) for column in spec.prompt.columns),
        *((field, getattr(spec, field)) for field in _COLUMN_FIELDS),
        ("tags.column", spec.tags and spec.tags.column),
        *(("where.column", where.column) for where in spec.where),
    ]
    for field, column in fields:
        if column is not None:
            _check_column(spec, field, _stored_in(column, known), known, origin)

    prompts: dict[str, Prompt] = {}
    for number, row in enumerate(rows):
        if not all(_meets(spec, number, row, where) for where in spec.where):
            continue
        prompt = _prompt(spec, number, row)
        if prompt.id in prompts:
            _bad_row(spec, number, f"id '{prompt.id}' is given twice")
        prompts[prompt.id] = prompt
    if not prompts:
        raise BadInputError(f"task {spec.name}: where: none of the {len(rows)} rows of {origin} is left")
    return tuple(prompts.values())


def _meets(spec: TaskSpec, number: int, row: Row, where: Where) -> bool:
    text = _cell(spec, number, row, where.column)
    try:
        return where.keeps(text)
    except ValueError:
        _bad_row(spec, number, f"column '{where.column}': expected a number, found '{text}'")


def _prompt(spec: TaskSpec, number: int, row: Row) -> Prompt:
    def optional(column: str | None) -> str | None:
        return (_cell(spec, number, row, column).strip() or None) if column is not None else None

    turns = _turns(spec, number, row)
    text = transcript(turns)
    identity = str(number) if spec.id_column is None else optional(spec.id_column)
    if identity is None:
        _bad_row(spec, number, f"id_column '{spec.id_column}' is empty")
    pair = optional(spec.pair_column)
    return Prompt(
        id=identity,
        text=text,
        task=spec.name,
        kind=spec.kind,
        category=optional(spec.category_column),
        pair=pair,
        split=_declared(spec, number, optional(spec.split_column)),
        turns=turns if len(turns) > 1 else (),
        tags=_tags(spec, number, row),
    )


def _turns(spec: TaskSpec, number: int, row: Row) -> Turns:
    """Return the conversation of a row; of most tasks a single user's message."""
    asked = spec.prompt
    if isinstance(asked.messages, str):
        try:
            return read_messages(_value(spec, number, row, asked.messages))
        except ValueError as error:
            _bad_row(spec, number, f"messages '{asked.messages}': {error}")
    parts = {column: _cell(spec, number, row, column) for column in asked.columns}
    if asked.messages is not None:
        turns = [Turn(turn.role, turn.content.format_map(parts).strip()) for turn in asked.messages]
    elif asked.template is not None:
        turns = [Turn("user", asked.template.format_map(parts).strip())]
    else:
        turns = [Turn("user", parts[asked.columns[0]].strip())]
    if not turns[-1].content:
        _bad_row(spec, number, "the prompt is empty")
    for column, value in parts.items():
        if not value.strip() and column not in asked.optional:
            _bad_row(spec, number, f"the prompt's column '{column}' is empty")
    # A turn of optional columns alone, such as a system turn that some rows have.
    return checked([turn for turn in turns if turn.content])


def _tags(spec: TaskSpec, number: int, row: Row) -> tuple[str, ...]:
    if spec.tags is None:
        return ()
    value = _value(spec, number, row, spec.tags.column)
    tags = []
    for text in value if isinstance(value, list) else [value or ""]:
        if not isinstance(text, str):
            problem = f"expected text or a list of texts, found a {type(text).__name__}"
            _bad_row(spec, number, f"tags.column '{spec.tags.column}': {problem}")
        tags.append(spec.tags.rename.get(text.strip(), text.strip()))
    return tuple(dict.fromkeys(tag for tag in tags if tag))


def _declared(spec: TaskSpec, number: int, value: str | None) -> Role | None:
    if spec.split_column is None:
        return None
    role = next((role for role in ROLES if role == value), None)
    if role is None:
        expected = ", ".join(ROLES)
        _bad_row(
            spec,
            number,
            f"split_column '{spec.split_column}': expected one of {expected}, found '{value or ''}'",
        )
    return role


def _stored_in(column: str, known: Container[str]) -> str:
    """Return the column that holds what is asked for: `turns` for `turns[0]`, unless a column is called just so."""
    item = _ITEM.fullmatch(column)
    return column if item is None or column in known else item["column"]


def _value(spec: TaskSpec, number: int, row: Row, column: str) -> Any:
    """Return what a column holds, or the item that is asked for of its list; None where it is absent."""
    stored = _stored_in(column, row)
    value = row.get(stored)
    if stored != column and value is not None:
        if not isinstance(value, list):
            _bad_row(spec, number, f"column '{stored}': expected a list, found a {type(value).__name__}")
        place = int(column[len(stored) + 1 : -1])
        value = value[place] if place < len(value) else None
    return None if value is None or value != value else value  # NaN, which tables have for what is absent


def _cell(spec: TaskSpec, number: int, row: Row, column: str) -> str:
    value = _value(spec, number, row, column)
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value)
    first = f"; '{column}[0]' is its first item" if isinstance(value, list) else ""
    _bad_row(spec, number, f"column '{column}': expected text, found a {type(value).__name__}{first}")


def _bad_row(spec: TaskSpec, number: int, problem: str) -> NoReturn:
    raise BadInputError(f"task {spec.name}: row {number} (counted from 0): {problem}")
