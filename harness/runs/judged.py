"""The judges of a run: their cards, and how far they agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.judges.base import Quantity, is_judged
from harness.metrics.agreement import agreement
from harness.runs.evidence import QUANTITIES
from harness.runs.labels import own_labels
from harness.runs.summary import JudgeAgreement, JudgeSummary, UnevenPart

if TYPE_CHECKING:
    from harness.metrics.rates import AnyLabel
    from harness.runs.evidence import Evidence


def judge_summaries(run: Evidence) -> dict[str, JudgeSummary]:
    """Return every judge beside people's labels, the primary one first."""
    return {name: _summary(run, name) for name in run.record.judges}


def _summary(run: Evidence, name: str) -> JudgeSummary:
    judge, card = run.record.judges[name], run.card(name)
    own = own_labels(run, judge.measures) if name == run.primary_of(judge.measures) else None
    if card is None or card.fingerprint != judge.fingerprint:
        return JudgeSummary(measures=judge.measures, fingerprint=judge.fingerprint, labels=[], n=0, own=own)
    return JudgeSummary(
        measures=judge.measures,
        fingerprint=judge.fingerprint,
        labels=[file.name for file in card.labels],
        n=card.all.n,
        clusters=card.all.clusters,
        **{what: getattr(card.all, what) for what in ("accuracy", "sensitivity", "specificity", "kappa")},
        precision=card.all.precision,
        positives_of=card.positives_of,
        uneven=[
            UnevenPart(by=by, **each.model_dump()) for by, found in card.uneven.items() for each in found
        ],
        own=own,
    )


def agreements(run: Evidence) -> list[JudgeAgreement]:
    """Return how far the judges of a quantity agree, task by task over all variants; empty for one judge of each."""
    return [row for quantity in QUANTITIES for row, _ in _compared(run, quantity)]


def differences(run: Evidence) -> list[dict[str, Any]] | None:
    """Return the answers on which the judges of a quantity do not all say the same; None for one judge of each."""
    if all(len(run.named_judges(quantity)) < 2 for quantity in QUANTITIES):
        return None
    return [row for quantity in QUANTITIES for _, rows in _compared(run, quantity) for row in rows]


def _compared(run: Evidence, quantity: Quantity) -> Iterator[tuple[JudgeAgreement, list[dict[str, Any]]]]:
    judges = run.named_judges(quantity)
    if len(judges) < 2:
        return
    for task, asked in run.record.asked.items():
        if not is_judged(quantity, asked.kind):
            continue
        variants = [name for name in run.record.evaluated if task in run.tasks_of(name)]
        labels: dict[str, dict[str, AnyLabel | None]] = {
            judge: {
                f"{variant}/{id}": label
                for variant in variants
                for id, label in run.labels(variant, task, judge).items()
            }
            for judge in judges
        }
        agreed = agreement(labels)
        differing = [answer.split("/", 1) for answer in agreed.differ]
        yield (
            JudgeAgreement(
                task=task, judges=judges, quantity=quantity, **agreed._asdict() | {"differ": len(differing)}
            ),
            [
                {
                    "variant": variant,
                    "task": task,
                    "id": id,
                    "labels": {judge: verdicts[f"{variant}/{id}"] for judge, verdicts in labels.items()},
                }
                for variant, id in differing
            ],
        )
