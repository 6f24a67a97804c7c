"""Files of answers to judge: a row per answer, as a run or anybody else kept them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError, nearest
from harness.data.tables import read_table

_COLUMNS = ("id", "prompt", "response")
_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": False, "none": False}


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Return the answers of a file, as `judge_all` takes them.

    Args:
        path: a table with columns id, prompt and response, and optional ones: opened (what the chat template had put
            before the response), truncated (by the token limit), or a run's own finish_reason and reasoning.

    Raises:
        BadInputError: the file can't be read, has no rows or lacks a column, or a row has another type than expected.
    """
    table = read_table(path)
    if not table:
        raise BadInputError(f"{path}: expected answers, found no rows")
    present = dict.fromkeys(name for row in table for name in row)
    for column in _COLUMNS:
        if column not in present:
            raise BadInputError(f"{path}: no column '{column}': {nearest(column, present)}")
    return [_answer(f"{path}: row {number}", row) for number, row in enumerate(table, start=1)]


def _answer(where: str, row: dict[str, Any]) -> dict[str, Any]:
    id = row.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
        raise BadInputError(f"{where}: column 'id': expected text, found {_said(id)}")
    texts = {name: row.get(name) for name in ("prompt", "response")}
    texts |= {name: row[name] for name in ("opened", "reasoning") if row.get(name) is not None}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise BadInputError(f"{where}: column '{name}': expected text, found {_said(text)}")
    truncated = row.get("truncated", row.get("finish_reason") == "length")
    if not isinstance(truncated, bool):
        said = "" if truncated is None else str(truncated).strip().lower()
        if said not in _TRUTH:
            raise BadInputError(
                f"{where}: column 'truncated': expected true or false, found {_said(truncated)}"
            )
        truncated = _TRUTH[said]
    return {"id": str(id), **texts, "finish_reason": "length" if truncated else "stop"}


def _said(value: object) -> str:
    return "nothing" if value is None else repr(value)
