"""Measure a judge on answers that people labelled, and make its card."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from harness.base.errors import BadInputError
from harness.base.files import sha256
from harness.judges.base import Judge, ManyAtOnce, Verdict
from harness.judges.card import Card, LabelFile, Measured, Partial
from harness.judges.labels import LABELS, Labelled
from harness.judges.prompts import prompts_of
from harness.metrics.judged import Departure, Verdicts, confusion, departures, figures, share


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

    A trained judge judges answers it was trained on as trained without their model family. Where several answers are to
    one prompt or to near-duplicates (`prompts_of`), intervals and tests are over prompts.

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
    pairs = [Judged(*each) for each in zip(rows, verdicts, prompts_of(rows), strict=True)]
    held_out = None
    if isinstance(judge, Trained) and any(reader is not judge for reader in readers):
        held_out = f"each answer's model family ({', '.join(judge.families)})"
    only_precision = positives_of == judge.name
    others = [each.row.id for each in pairs if each.verdict.label == labels[1]]
    if only_precision and others:
        raise BadInputError(
            f"--positives-of {judge.name}: it calls the answer '{others[0]}' {labels[1]}: expected its positives alone"
        )

    keys: dict[str, Callable[[Labelled], str]] = {
        "model": lambda row: row.model,
        "task": lambda row: row.task,
        "attack": lambda row: row.attack,
        "model and attack": lambda row: f"{row.model}, {row.attack}" if row.attack else "",
        "category": lambda row: row.category,
    }
    if any(len({keys[what](row) for row in rows}) < 2 for what in ("model", "attack")):
        del keys["model and attack"]

    def by(what: str) -> dict[str, Measured]:
        if what not in keys:
            return {}
        names = dict.fromkeys(keys[what](row) for row in rows)
        return {
            name: _measured([each for each in pairs if keys[what](each.row) == name], judge, only_precision)
            for name in names
            if name
        }

    uneven = {} if only_precision else {what: _departures(pairs, key) for what, key in keys.items()}
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
        by_model=by("model"),
        by_category=by("category"),
        partial=_partial(pairs),
        by_task=by("task"),
        by_attack=by("attack"),
        by_model_and_attack=by("model and attack"),
        positives_of=positives_of,
        labelled_from=labelled_from,
        uneven={what: found for what, found in uneven.items() if found},
    )


class Judged(NamedTuple):
    """A labelled answer with its verdict and its prompt (`prompts_of`)."""

    row: Labelled
    verdict: Verdict
    prompt: int


def _measured(pairs: Sequence[Judged], judge: Judge, only_precision: bool) -> Measured:
    counted = [each for each in pairs if each.row.label != "partial refusal"]
    verdicts = [each.verdict.label for each in counted]
    labels = [each.row.label for each in counted if each.row.label != "partial refusal"]
    of_harm = judge.measures == "harmfulness"
    counts = confusion(verdicts, labels, of_harm=of_harm)
    found = figures(verdicts, labels, [each.prompt for each in counted], of_harm=of_harm)
    return Measured(
        n=len(counted),
        scored=counts.scored,
        unscored=len(counted) - counts.scored,
        counts=counts,
        accuracy=None if only_precision else found.accuracy,
        sensitivity=None if only_precision else found.sensitivity,
        specificity=None if only_precision else found.specificity,
        kappa=None if only_precision else found.kappa,
        precision=found.precision,
        clusters=found.clusters,
    )


def _departures(pairs: Sequence[Judged], key: Callable[[Labelled], str]) -> list[Departure]:
    scored = [
        each for each in pairs if each.row.label != "partial refusal" and each.verdict.label is not None
    ]
    return departures(
        Verdicts(
            right=[each.verdict.label == each.row.label for each in scored],
            positive=[each.row.label in ("refusal", "harmful") for each in scored],
            part=[key(each.row) for each in scored],
            group=[each.prompt for each in scored],
        )
    )


def _partial(pairs: Sequence[Judged]) -> Partial:
    partial = [each.verdict for each in pairs if each.row.label == "partial refusal"]
    scored = [each for each in pairs if each.verdict.label is not None]
    right = [each.row.label == (_finer(each.verdict) or each.verdict.label) for each in scored]
    return Partial(
        n=len(partial),
        called_refusal=sum(verdict.label == "refusal" for verdict in partial),
        called_partial=sum(_finer(verdict) is not None for verdict in partial),
        others_called_partial=sum(
            _finer(each.verdict) is not None for each in pairs if each.row.label != "partial refusal"
        ),
        three_labels=share(right, [each.prompt for each in scored]) if partial else None,
    )


def _finer(verdict: Verdict) -> str | None:
    """Return "partial refusal" where a judge is sure of it; categories of harm are something else."""
    return verdict.finer if verdict.finer == "partial refusal" else None
