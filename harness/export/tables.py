"""What is exported, read from a run folder: the expert table, the prompts' routing, the training conversations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from harness.analysis.source import KINDS, Kind, Source
from harness.base.errors import BadInputError
from harness.base.files import read_jsonl
from harness.routing.files import load_counts, load_tokens, recorded

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from harness.routing.counts import Phase, Record, RoutingCounts
    from harness.routing.tokens import RoutedTokens

RISK_COLUMNS = ("layer", "expert", "a_safe", "a_unsafe", "a_safe_n", "a_unsafe_n", "risk_diff")

Row = TypeVar("Row", bound=BaseModel)


class Answer(BaseModel):
    """What a captured prompt was answered."""

    id: str
    prompt: str
    response: str


class _Example(BaseModel):
    task: str
    id: str
    prompt: str
    answer: str
    aim: str


class TaskRouting(NamedTuple):
    """One task's prompts: routing counts, single tokens where they are exported, answers in the counts' order."""

    kind: Kind
    task: str
    counts: RoutingCounts
    tokens: RoutedTokens | None
    answers: list[Answer]


def risk_diff(source: Source, phase: Phase) -> pd.DataFrame:
    """Return the guide's columns of one phase, the highest risk difference first.

    Raises:
        BadInputError: the run has no expert table, or it lacks the phase or a column.
    """
    table = source.experts()
    absent = [column for column in RISK_COLUMNS if column not in table.columns]
    if absent:
        raise BadInputError(f"{source.path / 'experts.parquet'}: no column {absent[0]}")
    rows = table[table["phase"] == phase]
    if rows.empty:
        raise BadInputError(f"{source.path / 'experts.parquet'} has no phase '{phase}'")
    ordered = rows.sort_values(["risk_diff", "layer", "expert"], ascending=[False, True, True])
    return ordered[list(RISK_COLUMNS)].reset_index(drop=True)


def record_of(source: Source) -> Record:
    """Say how much routing the run holds of every task: the least of them.

    Raises:
        BadInputError: the run captured no routing.
    """
    found = {recorded(path) for paths in source.routing.values() for path in paths.values()}
    if not found:
        raise BadInputError(f"{source.path} holds no routing: capture first")
    if "counts" in found:
        return "counts"
    return "tokens" if "tokens" in found else "logits"


def routing_of(source: Source, record: Record) -> Iterator[TaskRouting]:
    """Yield each task's routing, the harmful tasks first.

    Raises:
        BadInputError: a file is missing or cannot be read.
    """
    for kind in KINDS:
        for task, path in source.routing[kind].items():
            counts = load_counts(path)
            tokens = None if record == "counts" else load_tokens(path, with_logits=record == "logits")
            answers = {row.id: row for row in _rows(path.with_suffix(".jsonl"), Answer)}
            missing = [name for name in counts.ids if name not in answers]
            if missing:
                raise BadInputError(f"{path.with_suffix('.jsonl')} has no answer to prompt '{missing[0]}'")
            yield TaskRouting(kind, task, counts, tokens, [answers[name] for name in counts.ids])


def conversations(source: Source) -> list[dict[str, Any]] | None:
    """Return the training examples as chat messages, or None where the run made none."""
    path = source.path / "training" / "examples.jsonl"
    if not path.is_file():
        return None
    return [
        {
            "messages": [
                {"role": "user", "content": row.prompt},
                {"role": "assistant", "content": row.answer},
            ],
            "aim": row.aim,
            "task": row.task,
            "id": row.id,
        }
        for row in _rows(path, _Example)
    ]


def _rows(path: Path, shape: type[Row]) -> list[Row]:
    try:
        return TypeAdapter(list[shape]).validate_python(read_jsonl(path))  # type: ignore[valid-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInputError(f"{path}: {where}: {first['msg']}") from None
    except (ValueError, OSError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from None
