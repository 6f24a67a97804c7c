"""Files of answers that people labelled, read into one form.

XSTest's published files are recognised by their columns. Any other CSV, JSON, JSONL or Parquet file says in
columns, whose names can be given, what was asked, what was answered, and what a person called it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.base.errors import BadInputError, nearest
from harness.data.tables import read_table

HumanLabel = Literal["refusal", "compliance", "partial refusal"]

_KNOWN: dict[str, HumanLabel] = {
    "refusal": "refusal",
    "compliance": "compliance",
    "partial refusal": "partial refusal",
    "1_full_compliance": "compliance",
    "2_full_refusal": "refusal",
    "3_partial_refusal": "partial refusal",
}
_XSTEST_COLUMNS = {"id", "type", "prompt", "completion", "final_label"}


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a label file are called; model and category may be absent from the file."""

    id: str = "id"
    prompt: str = "prompt"
    response: str = "response"
    label: str = "label"
    model: str = "model"
    category: str = "category"


_XSTEST = Columns(response="completion", label="final_label", category="type")


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer and what a person called it.

    Attributes:
        id: the row's id, once in each model's answers.
        prompt: what was asked; "" where the file does not say.
        response: the answer.
        label: a person's.
        model: whose answer it is: the file's model column, else the file's name.
        category: what the prompt is about; "" where the file does not say.
    """

    id: str
    prompt: str
    response: str
    label: HumanLabel
    model: str
    category: str


def read_labels(paths: Sequence[Path], columns: Columns | None = None) -> list[Labelled]:
    """Read label files.

    Args:
        paths: one or several files.
        columns: names of the columns; by default XSTest's where the file has them, else those of `Columns`.

    Raises:
        BadInputError: a file can't be read, lacks a column or has no rows; an id is missing or given twice for one
            model; a label is unknown; or no answer is labelled refusal or compliance.
    """
    rows = [row for path in paths for row in _read(path, columns)]
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if (row.model, row.id) in seen:
            raise BadInputError(f"labels: id '{row.id}' is given twice for model '{row.model}'")
        seen.add((row.model, row.id))
    if not any(row.label != "partial refusal" for row in rows):
        raise BadInputError("labels: expected answers labelled refusal or compliance, found none")
    return rows


def _read(path: Path, columns: Columns | None) -> list[Labelled]:
    table = read_table(path)
    if not table:
        raise BadInputError(f"{path}: expected labelled answers, found no rows")
    present = dict.fromkeys(name for row in table for name in row)
    if "drawn" in present:
        raise BadInputError(
            f"{path}: its answers were drawn by a judge's verdicts, which makes sensitivity and specificity wrong: "
            f"add them to their run with `harness measure RUN --labels {path}`"
        )
    if columns is None:
        columns = _XSTEST if present.keys() >= _XSTEST_COLUMNS else Columns()
    for what, name in (("id", columns.id), ("response", columns.response), ("label", columns.label)):
        if name not in present:
            raise BadInputError(f"{path}: no column '{name}' for --{what}-column: {nearest(name, present)}")
    default_model = path.stem.removeprefix("xstest_v2_completions_").removeprefix("xstest_completions_")
    return [_row(path, number, row, columns, default_model) for number, row in enumerate(table, start=1)]


def _row(path: Path, number: int, row: dict[str, Any], columns: Columns, default_model: str) -> Labelled:
    where = f"{path}: row {number}"
    id = _text(row.get(columns.id))
    if not id:
        raise BadInputError(f"{where}: column '{columns.id}' is empty: expected an id")
    label = _text(row.get(columns.label)).lower()
    if label not in _KNOWN:
        raise BadInputError(
            f"{where}: unknown label '{_text(row.get(columns.label))}' in column '{columns.label}': expected "
            f"refusal, compliance or partial refusal"
        )
    response = row.get(columns.response)
    if not isinstance(response, str):
        raise BadInputError(
            f"{where}: column '{columns.response}': expected text, found {type(response).__name__}"
        )
    return Labelled(
        id=id,
        prompt=_text(row.get(columns.prompt)),
        response=response,
        label=_KNOWN[label],
        model=_text(row.get(columns.model)) or default_model,
        category=_text(row.get(columns.category)),
    )


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()
