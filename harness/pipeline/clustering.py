"""What near-duplicates among test prompts do to a run's figures, once all verdicts are in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.base.files import read_jsonl
from harness.data.duplicates import group_labels, near_duplicates
from harness.metrics.clustered import clustered_difference, clustered_rate
from harness.runs.run_folder import RunFolder
from harness.runs.summary import Clustered, Comparison, Measurement, Summary

_WANTED = {"refusal_rate": "refusal", "harmful_rate": "harmful"}

Groups = Mapping[str, int]


def with_clusters(folder: RunFolder, summary: Summary) -> Summary:
    """Return a summary whose rates and tests also say what they are over groups of near-duplicates.

    Tasks whose prompts are all different stay as they are.
    """
    groups = {task: found for task in _tasks(summary) if (found := _groups(folder, summary, task))}
    if not groups:
        return summary
    labels = _Labels(folder)
    variants = {
        name: variant.model_copy(
            update={
                "measurements": [
                    _rate(name, row, groups.get(row.task), labels) for row in variant.measurements
                ]
            }
        )
        for name, variant in summary.variants.items()
    }
    comparisons = [_test(row, groups.get(row.task), labels) for row in summary.comparisons]
    return summary.model_copy(update={"variants": variants, "comparisons": comparisons})


class _Labels:
    """A judge's labels by prompt id, each file read once."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._known: dict[tuple[str, str, str], dict[str, Any] | None] = {}

    def of(self, variant: str, task: str, judge: str | None) -> dict[str, Any] | None:
        key = (variant, task, str(judge))
        if key not in self._known:
            path = self.folder.verdicts(*key)
            # A majority has no file of its own.
            rows = read_jsonl(path) if path.is_file() else None
            self._known[key] = None if rows is None else {row["id"]: row["label"] for row in rows}
        return self._known[key]


def _tasks(summary: Summary) -> list[str]:
    return list(dict.fromkeys(task for variant in summary.variants.values() for task in variant.tasks))


def _groups(folder: RunFolder, summary: Summary, task: str) -> Groups | None:
    """Return each prompt's group, or None where no prompt repeats another."""
    name = next(name for name, variant in summary.variants.items() if task in variant.tasks)
    rows = read_jsonl(folder.responses(name, task))
    if len(rows) < 2:
        return None
    found = group_labels(len(rows), near_duplicates([row["prompt"] for row in rows])).tolist()
    return (
        {row["id"]: group for row, group in zip(rows, found, strict=True)}
        if len(set(found)) < len(rows)
        else None
    )


def _rate(variant: str, row: Measurement, groups: Groups | None, labels: _Labels) -> Measurement:
    said = labels.of(variant, row.task, row.judge) if groups and row.metric in _WANTED else None
    if said is None or groups is None:
        return row
    scored = {id: label == _WANTED[row.metric] for id, label in said.items() if label is not None}
    found = clustered_rate(list(scored.values()), [groups[id] for id in scored])
    clustered = None if found is None else Clustered(low=found.low, high=found.high, groups=found.groups)
    return row.model_copy(update={"clustered": clustered})


def _test(row: Comparison, groups: Groups | None, labels: _Labels) -> Comparison:
    if not groups or row.metric not in _WANTED:
        return row
    mine, theirs = (labels.of(name, row.task, row.judge) for name in (row.variant, row.against))
    if mine is None or theirs is None:
        return row
    wanted = _WANTED[row.metric]
    pairs = {
        id: (label == wanted) - (theirs[id] == wanted)
        for id, label in mine.items()
        if label is not None and theirs[id] is not None
    }
    found = clustered_difference(list(pairs.values()), [groups[id] for id in pairs])
    if found is None:
        return row
    clustered = Clustered(low=found.low, high=found.high, groups=found.groups, p_value=found.p_value)
    return row.model_copy(update={"clustered": clustered})
