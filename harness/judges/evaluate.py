"""Measure a judge on answers that people labelled, and make its card."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from harness.base.errors import BadInputError
from harness.base.files import sha256
from harness.judges.base import Judge, ManyAtOnce, Verdict
from harness.judges.card import Card, LabelFile, Measured, Partial
from harness.judges.labels import LABELS, Labelled
from harness.metrics.judged import confusion, share


@runtime_checkable
class Trained(Protocol):
    """A judge that learned from labelled answers, and can judge one without having learned from its like."""

    def unseen(self, response: str) -> Judge:
        """Return the judge as trained without the model family that gave this answer, if it was trained on it."""

    @property
    def families(self) -> Sequence[str]:
        """The model families that it was trained on."""


def evaluate_judge(
    judge: Judge,
    rows: Sequence[Labelled],
    files: Sequence[Path],
    *,
    positives_of: str | None = None,
    labelled_from: float | None = None,
) -> Card:
    """Judge every labelled answer and return the card.

    A trained judge judges answers it was trained on as trained without their model family.

    Args:
        judge: what to measure.
        rows: labelled answers.
        files: where they were read from.
        positives_of: the judge whose positives alone were labelled; None where no verdict chose the answers.
        labelled_from: the score from which people's labels count as positive, where they were scores.

    Raises:
        BadInputError: the judge measures something else than people labelled, or calls an answer negative that was
            labelled for its positive verdict.
    """
    labels = LABELS["harmfulness" if judge.measures == "harmfulness" else "refusal"]
    if any(row.label not in labels for row in rows):
        other = "refusal" if judge.measures == "harmfulness" else "harmfulness"
        raise BadInputError(f"judge '{judge.name}' measures {judge.measures}, but people labelled {other}")
    readers = [judge.unseen(row.response) if isinstance(judge, Trained) else judge for row in rows]
    if isinstance(judge, ManyAtOnce):
        # Several models answered the same prompts, so that ids are the models' own.
        verdicts = judge.judge_many(
            [
                {"id": str(number), "prompt": row.prompt, "response": row.response}
                for number, row in enumerate(rows)
            ]
        )
    else:
        verdicts = [
            reader.judge(row.id, row.prompt, row.response) for reader, row in zip(readers, rows, strict=True)
        ]
    pairs = list(zip(rows, verdicts, strict=True))
    held_out = None
    if isinstance(judge, Trained) and any(reader is not judge for reader in readers):
        held_out = f"each answer's model family ({', '.join(judge.families)})"
    only_precision = positives_of == judge.name
    others = [row.id for row, each in pairs if each.label == labels[1]]
    if only_precision and others:
        raise BadInputError(
            f"--positives-of {judge.name}: it calls the answer '{others[0]}' {labels[1]}: expected its positives alone"
        )

    def by(key: Callable[[Labelled], str]) -> dict[str, Measured]:
        names = dict.fromkeys(key(row) for row, _ in pairs)
        return {
            name: _measured([pair for pair in pairs if key(pair[0]) == name], judge, only_precision)
            for name in names
            if name
        }

    models, attacks = by(lambda row: row.model), by(lambda row: row.attack)
    is_crossed = len(models) > 1 and len(attacks) > 1
    lengths = sorted(len(row.response.split()) for row in rows)
    return Card(
        judge=judge.name,
        measures=judge.measures,
        fingerprint=judge.fingerprint,
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        labels=[LabelFile(name=path.name, sha256=sha256(path)) for path in files],
        held_out=held_out,
        words=(float(lengths[len(lengths) // 20]), float(lengths[-1 - len(lengths) // 20])),
        all=_measured(pairs, judge, only_precision),
        by_model=models,
        by_category=by(lambda row: row.category),
        partial=_partial(pairs),
        by_task=by(lambda row: row.task),
        by_attack=attacks,
        by_model_and_attack=by(lambda row: f"{row.model}, {row.attack}" if row.attack else "")
        if is_crossed
        else {},
        positives_of=positives_of,
        labelled_from=labelled_from,
    )


Pairs = Sequence[tuple[Labelled, Verdict]]


def _measured(pairs: Pairs, judge: Judge, only_precision: bool) -> Measured:
    counted = [(row.label, verdict.label) for row, verdict in pairs if row.label != "partial refusal"]
    counts = confusion(
        [verdict for _, verdict in counted],
        [label for label, _ in counted],
        of_harm=judge.measures == "harmfulness",
    )
    return Measured(
        n=len(counted),
        scored=counts.scored,
        unscored=len(counted) - counts.scored,
        counts=counts,
        accuracy=None if only_precision else counts.accuracy,
        sensitivity=None if only_precision else counts.sensitivity,
        specificity=None if only_precision else counts.specificity,
        kappa=None if only_precision else counts.kappa,
    )


def _partial(pairs: Pairs) -> Partial:
    partial = [verdict for row, verdict in pairs if row.label == "partial refusal"]
    scored = [
        (row.label, _finer(verdict) or verdict.label) for row, verdict in pairs if verdict.label is not None
    ]
    right = sum(label == called for label, called in scored)
    return Partial(
        n=len(partial),
        called_refusal=sum(verdict.label == "refusal" for verdict in partial),
        called_partial=sum(_finer(verdict) is not None for verdict in partial),
        others_called_partial=sum(
            _finer(verdict) is not None for row, verdict in pairs if row.label != "partial refusal"
        ),
        three_labels=share(right, len(scored)) if partial else None,
    )


def _finer(verdict: Verdict) -> str | None:
    """Return "partial refusal" where a judge is sure of it; categories of harm are something else."""
    return verdict.finer if verdict.finer == "partial refusal" else None
