"""How lm-eval makes a task's figures: which metric comes first, which way is better, what is no mean of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Scoring:
    """The metrics of one task or group, as its lm-eval configuration defines them.

    Attributes:
        metrics: names in the order of the task's `metric_list`, or of the group's `aggregate_metric_list`.
        higher_is_better: by metric; those without a direction are left out.
        not_means: metrics whose figure is not the plain mean of the items' scores, such as perplexity, a corpus's
            BLEU, or a group that counts each task once.
    """

    metrics: Sequence[str]
    higher_is_better: Mapping[str, bool]
    not_means: frozenset[str]


def scoring_of(name: str, loaded: Mapping[str, Any]) -> Scoring:
    """Return how a task or group is scored.

    Args:
        name: the task or group that was asked for.
        loaded: what lm-eval's `TaskManager.load` returned, after the evaluation: some metrics are named by their
            results.
    """
    group = loaded["groups"].get(name)
    if group is None:
        tasks = [loaded["tasks"][name]] if name in loaded["tasks"] else []
        return Scoring(list(_aggregation(tasks)), _directions(tasks), _not_means(tasks))
    tasks, entries = group.get_all_tasks(), group.aggregate_metric_list or ()
    weighted_otherwise = frozenset(entry.metric for entry in entries if not entry.weight_by_size)
    return Scoring(
        [entry.metric for entry in entries], _directions(tasks), _not_means(tasks) | weighted_otherwise
    )


def _aggregation(tasks: Sequence[Any]) -> dict[str, Any]:
    return {metric: function for task in tasks for metric, function in task.aggregation().items()}


def _directions(tasks: Sequence[Any]) -> dict[str, bool]:
    """Return each metric's direction, where all tasks that give one agree."""
    given: dict[str, list[object]] = {}
    for task in tasks:
        for metric, direction in task.higher_is_better().items():
            given.setdefault(metric, []).append(direction)
    return {
        metric: directions[0] is True
        for metric, directions in given.items()
        if all(direction is True for direction in directions)
        or all(direction is False for direction in directions)
    }


def _not_means(tasks: Sequence[Any]) -> frozenset[str]:
    from lm_eval.api.metrics import mean, nanmean

    # lm-eval itself takes the mean of a metric that has no aggregation.
    return frozenset(
        metric
        for task in tasks
        for metric, function in task.aggregation().items()
        if function not in (mean, nanmean)
    )
