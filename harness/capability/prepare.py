"""Write the files for lm-eval: task files without placeholders, and tables made of the user's files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError
from harness.base.files import write_jsonl, write_text
from harness.capability.tasks import CapabilityTask, Preparation, fill_placeholders
from harness.data.tables import read_table

Row = dict[str, Any]


def prepare_tasks(tasks: Iterable[CapabilityTask], data_dirs: Sequence[Path], folder: Path) -> None:
    """Fill `folder` with what a TaskManager needs for these tasks.

    Python files beside a task file are copied, since its `!function` entries may name them.

    Raises:
        BadInputError: a data file does not match the task file.
    """
    for task in tasks:
        place = folder / task.name
        place.mkdir(parents=True)
        for preparation in task.notes.prepare:
            rows = prepared_rows(preparation, task, data_dirs)
            write_jsonl(place / preparation.file, rows)
        for code in task.path.parent.glob("*.py"):
            shutil.copy(code, place / code.name)
        for path in (task.path, *task.included):
            text = fill_placeholders(path.read_text(encoding="utf-8"), task, data_dirs, place)
            # Under the name that `include` has for it; that is relative to the task file.
            write_text(place / os.path.relpath(path, task.path.parent), text)


def prepared_rows(preparation: Preparation, task: CapabilityTask, data_dirs: Sequence[Path]) -> list[Row]:
    """Return the rows of a prepared table; each has an `id`, "SOURCE/ROW", unless it came with one.

    Raises:
        BadInputError: a column is missing, a label or number is not an integer, or labels and rows do not match.
    """
    tables: list[list[Row]] = []
    for source, name in preparation.rows.items():
        path = Path(fill_placeholders(name, task, data_dirs, Path()))
        rows = read_table(path)
        labels = {
            column: _integers(Path(fill_placeholders(file, task, data_dirs, Path())), len(rows), path)
            for column, file in preparation.labels.items()
        }
        for number, row in enumerate(rows):
            row.setdefault("id", f"{source}/{number}")
            row.update({column: values[number] for column, values in labels.items()})
            row.update({column: _integer(path, number, row, column) for column in preparation.integers})
            if preparation.source_column is not None:
                row[preparation.source_column] = source
        tables.append(rows)
    return [row for row in chain.from_iterable(zip_longest(*tables)) if row is not None]


def _integers(path: Path, expected: int, rows: Path) -> list[int]:
    lines = path.read_text(encoding="utf-8").split()
    if len(lines) != expected:
        raise BadInputError(
            f"{path}: {len(lines)} labels, expected {expected}, one for each row of {rows.name}"
        )
    try:
        return [int(line) for line in lines]
    except ValueError as error:
        raise BadInputError(f"{path}: expected one integer per line ({error})") from error


def _integer(path: Path, number: int, row: Row, column: str) -> int:
    try:
        return int(row[column])
    except (KeyError, TypeError, ValueError) as error:
        value = repr(row[column]) if column in row else "no such column"
        raise BadInputError(
            f"{path}: row {number + 1}: {column}: expected an integer, found {value}"
        ) from error
