"""Measure a judge on answers that people labelled, and make its card."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from harness.base.errors import BadInputError
from harness.base.files import sha256
from harness.judges.base import Judge, ManyAtOnce, Verdict
from harness.judges.card import Card, LabelFile, Measured, Partial
from harness.judges.labels import Labelled
from harness.metrics.judged import confusion, share
from harness.metrics.rates import Label


@runtime_checkable
class Trained(Protocol):
    """A judge that learned from labelled answers, and can judge one without having learned from its like."""

    def unseen(self, response: str) -> Judge:
        """Return the judge as trained without the model family that gave this answer, if it was trained on it."""

    @property
    def families(self) -> Sequence[str]:
        """The model families that it was trained on."""


def evaluate_judge(judge: Judge, rows: Sequence[Labelled], files: Sequence[Path]) -> Card:
    """Judge every labelled answer and return the card.

    A trained judge judges answers it was trained on as trained without their model family.

    Args:
        judge: what to measure.
        rows: labelled answers.
        files: where they were read from.

    Raises:
        BadInputError: the judge measures something else than people labelled.
    """
    if judge.measures != "refusal":
        raise BadInputError(f"judge '{judge.name}' measures {judge.measures}, but people labelled refusal")
    readers = [judge.unseen(row.response) if isinstance(judge, Trained) else judge for row in rows]
    if isinstance(judge, ManyAtOnce):
        verdicts = judge.judge_many([{"id": r.id, "prompt": r.prompt, "response": r.response} for r in rows])
    else:
        verdicts = [
            reader.judge(row.id, row.prompt, row.response) for reader, row in zip(readers, rows, strict=True)
        ]
    pairs = list(zip(rows, verdicts, strict=True))
    held_out = None
    if isinstance(judge, Trained) and any(reader is not judge for reader in readers):
        held_out = f"each answer's model family ({', '.join(judge.families)})"
    lengths = sorted(len(row.response.split()) for row in rows)
    return Card(
        judge=judge.name,
        measures=judge.measures,
        fingerprint=judge.fingerprint,
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        labels=[LabelFile(name=path.name, sha256=sha256(path)) for path in files],
        held_out=held_out,
        words=(float(lengths[len(lengths) // 20]), float(lengths[-1 - len(lengths) // 20])),
        all=_measured(pairs),
        by_model=_by(pairs, lambda row: row.model),
        by_category=_by(pairs, lambda row: row.category),
        partial=_partial(pairs),
    )


Pairs = Sequence[tuple[Labelled, Verdict]]


def _by(pairs: Pairs, key: Callable[[Labelled], str]) -> dict[str, Measured]:
    names = dict.fromkeys(key(row) for row, _ in pairs)
    return {name: _measured([pair for pair in pairs if key(pair[0]) == name]) for name in names if name}


def _measured(pairs: Pairs) -> Measured:
    labels: list[Label] = []
    verdicts: list[Label | None] = []
    for row, verdict in pairs:
        if row.label != "partial refusal":
            labels.append(row.label)
            verdicts.append(cast("Label | None", verdict.label))
    counts = confusion(verdicts, labels)
    return Measured(
        n=len(labels),
        scored=counts.scored,
        unscored=len(labels) - counts.scored,
        counts=counts,
        accuracy=counts.accuracy,
        sensitivity=counts.sensitivity,
        specificity=counts.specificity,
        kappa=counts.kappa,
    )


def _partial(pairs: Pairs) -> Partial:
    partial = [verdict for row, verdict in pairs if row.label == "partial refusal"]
    scored = [
        (row.label, verdict.finer or verdict.label) for row, verdict in pairs if verdict.label is not None
    ]
    right = sum(label == called for label, called in scored)
    return Partial(
        n=len(partial),
        called_refusal=sum(verdict.label == "refusal" for verdict in partial),
        called_partial=sum(verdict.finer is not None for verdict in partial),
        others_called_partial=sum(
            verdict.finer is not None for row, verdict in pairs if row.label != "partial refusal"
        ),
        three_labels=share(right, len(scored)) if partial else None,
    )
