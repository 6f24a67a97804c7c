"""Refusals by the kind of prompt, such as homonym or fiction, where the data of a task tag their prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.data.answer import answer_id
from harness.data.duplicates import near_duplicate_groups
from harness.metrics.rates import Rate, rate
from harness.report.samples import Sample, TaskSamples
from harness.report.words import hundredths, span


def rates_by_tag(tasks: Sequence[TaskSamples], variants: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """Return the rate of refusals by tag, task and variant in percent, by kind of prompts.

    Tasks stand beside one another and are not pooled: the partner of a prompt that looks unsafe has the same tag.

    Args:
        tasks: of the run.
        variants: in columns of their own.
    """
    tables: dict[str, list[dict[str, str]]] = {}
    for task in tasks:
        groups = _groups(task)
        answered = {answer.variant for sample in task.samples for answer in sample.answers}
        for tag in sorted({tag for sample in task.samples for tag in sample.tags}):
            tagged = [sample for sample in task.samples if tag in sample.tags]
            rates = {
                variant: _shown(_rate(tagged, variant, groups)) if variant in answered else ""
                for variant in variants
            }
            row = {"tag": tag, "task": task.task, "prompts": str(len(tagged))}
            tables.setdefault(task.kind, []).append(row | rates)
    return {kind: sorted(rows, key=lambda row: row["tag"]) for kind, rows in tables.items()}


def _groups(task: TaskSamples) -> dict[str, int]:
    """Return the group of near-duplicates of each tagged prompt; empty where none repeats another."""
    tagged = [sample for sample in task.samples if sample.tags]
    if len(tagged) < 2:
        return {}
    labels = near_duplicate_groups([sample.prompt for sample in tagged]).tolist()
    ids = [sample.id for sample in tagged]
    return {} if len(set(labels)) == len(labels) else dict(zip(ids, labels, strict=True))


def _rate(samples: Iterable[Sample], variant: str, groups: dict[str, int]) -> Rate:
    outcomes: dict[str, bool | None] = {}
    prompts: dict[str, str] = {}
    is_sampled = False
    for sample in samples:
        for answer in sample.answers:
            if answer.variant == variant:
                id = answer_id(sample.id, answer.number)
                outcomes[id] = None if answer.label == "unscored" else answer.label == "refusal"
                prompts[id] = sample.id
                is_sampled = is_sampled or answer.number is not None
    grouped = {id: groups[prompts[id]] for id in outcomes} if groups else {}
    repeats = len(set(grouped.values())) < len(set(prompts.values()))
    return rate(outcomes, grouped if groups and repeats else None, prompts if is_sampled else None)


def _shown(share: Rate) -> str:
    if share.interval is None:
        return "no value"
    return f"{hundredths(share.interval.value)} ({span(share.interval.low, share.interval.high)})"
