"""What is known of the judges of a run: their cards, and how far they agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.metrics.agreement import agreement
from harness.metrics.interval import Interval
from harness.runs.evidence import MAJORITY
from harness.runs.summary import JudgeAgreement, JudgeSummary

if TYPE_CHECKING:
    from harness.metrics.rates import AnyLabel
    from harness.runs.evidence import Evidence


def judge_summaries(run: Evidence) -> dict[str, JudgeSummary]:
    """Return every judge beside people's labels, the primary one first."""
    return {name: _summary(run, name) for name in run.record.judges}


def _summary(run: Evidence, name: str) -> JudgeSummary:
    judge, card = run.judge(name), run.card(name)
    if card is None or card.fingerprint != judge.fingerprint:
        return JudgeSummary(measures=judge.measures, fingerprint=judge.fingerprint, labels=[], n=0)
    figures = {
        what: None if (figure := getattr(card.all, what)) is None else Interval(**figure.model_dump())
        for what in ("accuracy", "sensitivity", "specificity", "kappa")
    }
    return JudgeSummary(
        measures=judge.measures,
        fingerprint=judge.fingerprint,
        labels=[file.name for file in card.labels],
        n=card.all.n,
        **figures,
    )


def agreements(run: Evidence) -> list[JudgeAgreement]:
    """Return how far the judges of refusal agree, task by task over all variants; empty of one judge."""
    return [row for row, _ in _compared(run)]


def differences(run: Evidence) -> list[dict[str, Any]] | None:
    """Return the answers on which the judges of refusal do not all say the same; None of one judge."""
    if len(_judges(run)) < 2:
        return None
    return [difference for _, rows in _compared(run) for difference in rows]


def _judges(run: Evidence) -> list[str]:
    return [name for name in run.judges_of("refusal") if name != MAJORITY]


def _compared(run: Evidence) -> Iterator[tuple[JudgeAgreement, list[dict[str, Any]]]]:
    judges = _judges(run)
    if len(judges) < 2:
        return
    for task in run.asked:
        variants = [name for name in run.evaluated if task in run.tasks_of(name)]
        labels: dict[str, dict[str, AnyLabel | None]] = {
            judge: {
                f"{variant}/{id}": label
                for variant in variants
                for id, label in run.labels(variant, task, judge).items()
            }
            for judge in judges
        }
        found = agreement(labels)
        row = JudgeAgreement(
            task=task,
            judges=judges,
            n=found.n,
            kappa=found.kappa,
            alpha=found.alpha,
            differ=len(found.differ),
        )
        yield row, [_difference(task, answer, labels) for answer in found.differ]


def _difference(
    task: str, answer: str, labels: Mapping[str, Mapping[str, AnyLabel | None]]
) -> dict[str, Any]:
    variant, _, id = answer.partition("/")
    said = {judge: verdicts[answer] for judge, verdicts in labels.items()}
    return {"variant": variant, "task": task, "id": id, "labels": said}
