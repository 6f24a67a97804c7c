"""Refusal by similarity to training prompts: one row per trained variant and harmful task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report.words import interval, percent

if TYPE_CHECKING:
    from harness.runs.rows import Measurement
    from harness.runs.summary import Summary

NEAR, FAR = "refusal_near_training", "refusal_far_from_training"


def by_similarity(summary: Summary) -> list[dict[str, str]]:
    """Return the refusal of each trained variant near and far from training prompts."""
    places = dict.fromkeys(
        (row.variant, row.task) for row in summary.measurements if row.metric in (NEAR, FAR)
    )
    return [
        {
            "variant": variant,
            "task": str(task),
            "near training prompts": _rate(summary.figure(variant, task, NEAR, summary.judge)),
            "other prompts": _rate(summary.figure(variant, task, FAR, summary.judge)),
        }
        for variant, task in places
    ]


def near_and_far(summary: Summary) -> list[tuple[Measurement, Measurement]]:
    """Return the intervention's rates near and far, of each task that has prompts of both kinds."""
    pairs = (
        (row, summary.figure(row.variant, row.task, FAR, row.judge))
        for row in summary.of(summary.intervention)
        if row.metric == NEAR
    )
    return [(near, far) for near, far in pairs if far is not None]


def _rate(row: Measurement | None) -> str:
    if row is None:
        return ""
    ends = interval(row.low, row.high)
    return f"{percent(row.value)}{f' ({ends})' if ends else ''} of {row.scored}"
