"""Refusals and harmful answers by the kind of prompt, such as homonym or fiction, where data tag their prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.data.answer import answer_id
from harness.data.duplicates import groups_where_repeated
from harness.judges.base import Quantity
from harness.metrics.rates import AnyLabel, Rate, rate
from harness.report.samples import Sample, TaskSamples
from harness.report.table import Table, table_of
from harness.report.words import hundredths, span

_COUNTED: dict[Quantity, tuple[str, AnyLabel]] = {
    "refusal": ("refusal", "refusal"),
    "harmfulness": ("harmful answers", "harmful"),
}
"""What the share of each quantity is called, and the label that counts."""


def tag_tables(tasks: Sequence[TaskSamples], variants: Sequence[str]) -> dict[str, Table]:
    """Return the rates of `rates_by_tag` as tables, by kind of prompts."""
    return {
        kind: table_of(
            rows,
            f"{kind}: {'refused or harmful' if 'rate' in rows[0] else 'refused'} of scored answers in percent "
            f"(95 % interval)",
            keys=list(rows[0]).index("prompts"),
        )
        for kind, rows in rates_by_tag(tasks, variants).items()
    }


def rates_by_tag(tasks: Sequence[TaskSamples], variants: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """Return the rate of refusals by tag, task and variant in percent, by kind of prompts.

    Tasks stand beside one another and are not pooled: the partner of a prompt that looks unsafe has the same tag.
    Where a judge of harmfulness read the answers, the rate of harmful answers is a row of its own.

    Args:
        tasks: of the run.
        variants: in columns of their own.
    """
    judged = {task.kind for task in tasks if task.is_judged_for_harm}
    tables: dict[str, list[dict[str, str]]] = {}
    for task in tasks:
        groups = groups_where_repeated({each.id: each.prompt for each in task.samples if each.tags}) or {}
        answered = {answer.variant for sample in task.samples for answer in sample.answers}
        quantities: tuple[Quantity, ...] = (
            ("refusal", "harmfulness") if task.is_judged_for_harm else ("refusal",)
        )
        for tag in sorted({tag for sample in task.samples for tag in sample.tags}):
            tagged = [sample for sample in task.samples if tag in sample.tags]
            for quantity in quantities:
                row = {"tag": tag, "task": task.task}
                if task.kind in judged:
                    row["rate"] = _COUNTED[quantity][0]
                row["prompts"] = str(len(tagged))
                rates = {
                    variant: _shown(_rate(tagged, variant, quantity, groups)) if variant in answered else ""
                    for variant in variants
                }
                tables.setdefault(task.kind, []).append(row | rates)
    return {kind: sorted(rows, key=lambda row: row["tag"]) for kind, rows in tables.items()}


def _rate(samples: Iterable[Sample], variant: str, quantity: Quantity, groups: dict[str, int]) -> Rate:
    outcomes: dict[str, bool | None] = {}
    prompts: dict[str, str] = {}
    is_sampled = False
    for sample in samples:
        for answer in sample.answers:
            if answer.variant == variant:
                id, label = answer_id(sample.id, answer.number), answer.label_of(quantity)
                outcomes[id] = None if label in ("", "unscored") else label == _COUNTED[quantity][1]
                prompts[id] = sample.id
                is_sampled = is_sampled or answer.number is not None
    grouped = {id: groups[prompts[id]] for id in outcomes} if groups else {}
    repeats = len(set(grouped.values())) < len(set(prompts.values()))
    return rate(outcomes, grouped if groups and repeats else None, prompts if is_sampled else None)


def _shown(share: Rate) -> str:
    if share.interval is None:
        return "no value"
    return f"{hundredths(share.interval.value)} ({span(share.interval.low, share.interval.high)})"
