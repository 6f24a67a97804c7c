"""Refusal by what a prompt is about, where its data set says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.samples import TaskSamples


@dataclass(frozen=True, slots=True)
class CategoryTable:
    """One task: a row a category, a cell a variant with refused and scored answers."""

    task: str
    kind: str
    variants: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]


def by_category(tasks: Sequence[TaskSamples], variants: Sequence[str]) -> list[CategoryTable]:
    """Return a table for each task whose prompts are of two categories or more."""
    return [table for task in tasks if len((table := _table(task, variants)).rows) > 1]


def _table(task: TaskSamples, variants: Sequence[str]) -> CategoryTable:
    counts: dict[str, dict[str, list[int]]] = {}
    for sample in task.samples:
        if sample.category:
            of = counts.setdefault(sample.category, {})
            for answer in sample.answers:
                cell = of.setdefault(answer.variant, [0, 0])
                cell[0] += answer.label == "refusal"
                cell[1] += answer.label != "unscored"
    present = tuple(variant for variant in variants if any(variant in of for of in counts.values()))
    rows = tuple(
        (category, tuple((of.get(variant, [0, 0])[0], of.get(variant, [0, 0])[1]) for variant in present))
        for category, of in sorted(counts.items())
    )
    return CategoryTable(task.task, task.kind, present, rows)
