"""What is exported, read from a run folder: the expert table, the prompts' routing, the training conversations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.base.errors import BadInputError
from harness.data.conversation import Turn, as_messages
from harness.routing.files import recorded
from harness.routing.phases import phase_among
from harness.runs.captured import KINDS, Kind, tasks_of

if TYPE_CHECKING:
    import pandas as pd

    from harness.data.answer import Answer
    from harness.routing.counts import Phase, Record, RoutingCounts
    from harness.routing.tokens import RoutedTokens
    from harness.runs.run import Run

RISK_COLUMNS = ("layer", "expert", "a_safe", "a_unsafe", "a_safe_n", "a_unsafe_n", "risk_diff")


class TaskRouting(NamedTuple):
    """One task's prompts: routing counts, single tokens where they are exported, answers in the counts' order."""

    kind: Kind
    task: str
    counts: RoutingCounts
    tokens: RoutedTokens | None
    answers: list[Answer]


def risk_diff(run: Run, phase: Phase) -> pd.DataFrame:
    """Return the guide's columns of one phase, the highest risk difference first.

    Raises:
        BadInputError: the run has no expert table, or it lacks the phase or a column.
    """
    table = run.experts()
    absent = [column for column in RISK_COLUMNS if column not in table.columns]
    if absent:
        raise BadInputError(f"{run.layout.experts}: no column {absent[0]}")
    rows = table[table["phase"] == phase_among(phase, set(table["phase"]))]
    if rows.empty:
        raise BadInputError(f"{run.layout.experts} has no phase '{phase}'")
    ordered = rows.sort_values(["risk_diff", "layer", "expert"], ascending=[False, True, True])
    return ordered[list(RISK_COLUMNS)].reset_index(drop=True)


def record_of(run: Run) -> Record:
    """Say how much routing the run holds of every task: the least of them.

    Raises:
        BadInputError: the run captured no routing.
    """
    levels = {recorded(path) for path in run.captured.values()}
    if not levels:
        raise BadInputError(f"{run.path} holds no routing: capture first")
    if "counts" in levels:
        return "counts"
    return "tokens" if "tokens" in levels else "logits"


def routing_of(run: Run, record: Record) -> Iterator[TaskRouting]:
    """Yield each task's routing, the harmful tasks first.

    Raises:
        BadInputError: a file is missing or cannot be read.
    """
    for kind in KINDS:
        for task in tasks_of(run, kind):
            counts = run.routing(task)
            tokens = None if record == "counts" else run.tokens(task, with_logits=record == "logits")
            answers = {row.id: row for row in run.captured_answers(task)}
            missing = [name for name in counts.ids if name not in answers]
            if missing:
                raise BadInputError(
                    f"{run.layout.captured_answers(task)} has no answer to prompt '{missing[0]}'"
                )
            yield TaskRouting(kind, task, counts, tokens, [answers[name] for name in counts.ids])


def conversations(run: Run) -> list[dict[str, Any]] | None:
    """Return the training examples as chat messages, or None where the run made none."""
    examples = run.examples()
    if examples is None:
        return None
    return [
        {
            "messages": [
                *as_messages(row.messages or [Turn("user", row.prompt)]),
                {"role": "assistant", "content": row.answer},
            ],
            "aim": row.aim,
            "task": row.task,
            "id": row.id,
        }
        for row in examples
    ]
