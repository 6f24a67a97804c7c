"""Files of answers that people labelled, read into one form.

XSTest's published files are recognised by their columns. Any other CSV, JSON, JSONL or Parquet file says in
columns, whose names can be given, what was asked, what was answered, and what a person called it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.base.errors import BadInputError, nearest
from harness.data.tables import read_table
from harness.judges.base import Quantity

HumanLabel = Literal["refusal", "compliance", "partial refusal", "harmful", "harmless"]

LABELS: dict[Quantity, tuple[HumanLabel, ...]] = {
    "refusal": ("refusal", "compliance", "partial refusal"),
    "harmfulness": ("harmful", "harmless"),
}
"""What a person may call an answer, by the quantity that is asked."""
_PUBLISHED: dict[str, HumanLabel] = {
    "1_full_compliance": "compliance",
    "2_full_refusal": "refusal",
    "3_partial_refusal": "partial refusal",
    "unsafe": "harmful",
    "safe": "harmless",
}
_XSTEST_COLUMNS = {"id", "type", "prompt", "completion", "final_label"}


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a label file are called; those after the label may be absent from the file."""

    id: str = "id"
    prompt: str = "prompt"
    response: str = "response"
    label: str = "label"
    model: str = "model"
    category: str = "category"
    task: str = "task"
    attack: str = "attack"


_XSTEST = Columns(response="completion", label="final_label", category="type")


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer and what a person called it.

    Attributes:
        id: the row's id, once in each model's answers under an attack.
        prompt: what was asked; "" where the file does not say.
        response: the answer.
        label: a person's.
        model: whose answer it is: the file's model column, else the file's name.
        category: what the prompt is about; "" where the file does not say.
        task: what was asked; "" where the file does not say.
        attack: how it was asked; "" where the file does not say.
    """

    id: str
    prompt: str
    response: str
    label: HumanLabel
    model: str
    category: str
    task: str = ""
    attack: str = ""


def read_labels(
    paths: Sequence[Path],
    columns: Columns | None = None,
    quantity: Quantity = "refusal",
    positive_from: float | None = None,
) -> list[Labelled]:
    """Read label files.

    Args:
        paths: one or several files.
        columns: names of the columns; by default XSTest's where the file has them, else those of `Columns`.
        quantity: what people labelled.
        positive_from: the column of labels holds numbers, and those from this one on count as refusal or harmful.

    Raises:
        BadInputError: a file can't be read, lacks a column or has no rows; an id is missing or given twice for one
            model; a label is unknown; or no answer has a label that counts.
    """
    rows = [row for path in paths for row in _read(path, columns, quantity, positive_from)]
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        key = (row.model, row.attack, row.id)
        if key in seen:
            under = f" under attack '{row.attack}'" if row.attack else ""
            raise BadInputError(f"labels: id '{row.id}' is given twice for model '{row.model}'{under}")
        seen.add(key)
    if not any(row.label != "partial refusal" for row in rows):
        raise BadInputError(
            f"labels: expected answers labelled {' or '.join(LABELS[quantity][:2])}, found none"
        )
    return rows


def _read(
    path: Path, columns: Columns | None, quantity: Quantity, positive_from: float | None
) -> list[Labelled]:
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
    labelled = []
    for number, row in enumerate(table, start=1):
        where = f"{path}: row {number}"
        label = _label(where, row.get(columns.label), columns.label, quantity, positive_from)
        labelled.append(_row(where, row, columns, default_model, label))
    return labelled


def _label(
    where: str, given: object, column: str, quantity: Quantity, positive_from: float | None
) -> HumanLabel:
    text, known = _text(given), LABELS[quantity]
    if positive_from is not None:
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise BadInputError(f"{where}: column '{column}': expected a number, found '{text}'")
        return known[0] if score >= positive_from else known[1]
    label = _PUBLISHED.get(text.lower(), text.lower())
    for each in known:
        if label == each:
            return each
    raise BadInputError(
        f"{where}: unknown label '{text}' in column '{column}': expected {', '.join(known[:-1])} or {known[-1]}"
    )


def _row(
    where: str, row: dict[str, Any], columns: Columns, default_model: str, label: HumanLabel
) -> Labelled:
    id = _text(row.get(columns.id))
    if not id:
        raise BadInputError(f"{where}: column '{columns.id}' is empty: expected an id")
    response = row.get(columns.response)
    if not isinstance(response, str):
        raise BadInputError(
            f"{where}: column '{columns.response}': expected text, found {type(response).__name__}"
        )
    return Labelled(
        id=id,
        prompt=_text(row.get(columns.prompt)),
        response=response,
        label=label,
        model=_text(row.get(columns.model)) or default_model,
        category=_text(row.get(columns.category)),
        task=_text(row.get(columns.task)),
        attack=_text(row.get(columns.attack)),
    )


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()
