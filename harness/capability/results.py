"""From lm-eval's results to one figure per task with its interval, and a score per item."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.base.errors import BadInputError, HarnessError, nearest
from harness.metrics.rates import wilson

_UNPARSED = "[invalid]"
"""Written by lm-eval's filters where they find no answer in a generation."""
_NOT_METRICS = ("alias", "name", "sample_len", "sample_count")


@dataclass(frozen=True, slots=True)
class CapabilityResult:
    """One task's figure.

    Attributes:
        task: the task's name in lm-eval.
        metric: the reported metric, such as "acc"; "metric,filter" where lm-eval filters answers.
        value: lm-eval's value; None when it gives no number.
        stderr: lm-eval's standard error, where it gives one.
        low: lower end of the 95 % interval.
        high: upper end.
        interval: the kind of interval: Wilson's for scores of 0 and 1, value plus or minus 1.96 standard
            errors for others, None without a standard error.
        n: items asked.
        unparsed: answers in which lm-eval found no choice or number, and which count as wrong in `value`; None
            where the model is not asked to generate.
        items: each item's score by id, for paired comparisons; empty for metrics that have none.
        others: further metrics of the task.
    """

    task: str
    metric: str
    value: float | None
    stderr: float | None
    low: float | None
    high: float | None
    interval: Literal["wilson", "normal"] | None
    n: int
    unparsed: int | None
    items: dict[str, float]
    others: dict[str, float | None]

    def row(self) -> dict[str, Any]:
        """Return the task's entry in capability.json."""
        return asdict(self)


def capability_result(task: str, results: Mapping[str, Any], metric: str | None = None) -> CapabilityResult:
    """Read one task's (or group's) figure out of `simple_evaluate`'s results.

    Args:
        task: task or group that was asked for.
        results: what `simple_evaluate` returned, samples included.
        metric: the metric to report; the first one otherwise.

    Raises:
        BadInputError: the task has no such metric.
        HarnessError: the model gave a log-likelihood that is no number.
    """
    figures: dict[str, Any] = {**results["results"].get(task, {}), **results.get("groups", {}).get(task, {})}
    metrics = [key for key in figures if key not in _NOT_METRICS and "_stderr," not in key]
    if not metrics:
        raise BadInputError(f"capability task '{task}' has no figure of its own: name its tasks one by one")
    key = (
        metrics[0]
        if metric is None
        else next((name for name in metrics if metric in (name, name.partition(",")[0])), None)
    )
    if key is None:
        raise BadInputError(
            f"capability task '{task}' has no metric '{metric}': {nearest(str(metric), metrics)}"
        )
    name, _, used_filter = key.partition(",")
    value, stderr = _number(figures[key]), _number(figures.get(f"{name}_stderr,{used_filter}"))
    samples = list(_samples(task, results, used_filter))
    _check_numbers(task, samples)
    scores = {item: float(sample[name]) for item, sample in samples if _number(sample.get(name)) is not None}
    scores = scores if len(scores) == len(samples) else {}
    low, high, interval = _interval(value, stderr, scores)
    return CapabilityResult(
        task=task,
        metric=_shown(key),
        value=value,
        stderr=stderr,
        low=low,
        high=high,
        interval=interval,
        n=len(samples),
        unparsed=_unparsed([sample for _, sample in samples]),
        items=scores,
        others={_shown(other): _number(figures[other]) for other in metrics if other != key},
    )


def _samples(task: str, results: Mapping[str, Any], used_filter: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each item's id and sample; the ids of a group's items begin with the name of their task."""
    leaves = list(_leaves(task, results))
    for leaf in leaves:
        samples = [sample for sample in results["samples"][leaf] if sample["filter"] == used_filter]
        own = [str(sample["doc"]["id"]) for sample in samples if "id" in sample["doc"]]
        ids = own if len(set(own)) == len(samples) else [str(sample["doc_id"]) for sample in samples]
        for item, sample in zip(ids, samples, strict=True):
            yield (item if leaf == task else f"{leaf}/{item}"), sample


def _leaves(task: str, results: Mapping[str, Any]) -> Iterator[str]:
    children = results.get("group_subtasks", {}).get(task) or ()
    if not children:
        yield task
    for child in children:
        yield from _leaves(child, results)


def _check_numbers(task: str, samples: list[tuple[str, dict[str, Any]]]) -> None:
    # lm-eval takes the argmax of log-likelihoods: with NaN it would report the first choice as the answer.
    for item, sample in samples:
        pairs = [answer for answer in _answers(sample) if isinstance(answer, (tuple, list)) and answer]
        if any(isinstance(pair[0], float) and math.isnan(pair[0]) for pair in pairs):
            raise HarnessError(f"capability task '{task}', item {item}: the log-likelihood is not a number")


def _unparsed(samples: list[dict[str, Any]]) -> int | None:
    if not any(isinstance(answer, str) for sample in samples for answer in _answers(sample)):
        return None
    return sum(_UNPARSED in _answers(sample) for sample in samples)


def _answers(sample: Mapping[str, Any]) -> list[Any]:
    return list(sample["filtered_resps"])


def _interval(
    value: float | None, stderr: float | None, scores: Mapping[str, float]
) -> tuple[float | None, float | None, Literal["wilson", "normal"] | None]:
    right = sum(scores.values())
    # A group may weight its tasks in another way than by their items.
    counts = value is not None and len(scores) > 0 and math.isclose(right / len(scores), value)
    if counts and set(scores.values()) <= {0.0, 1.0}:
        interval = wilson(int(right), len(scores))
        return interval.low, interval.high, "wilson"
    if value is not None and stderr is not None:
        return value - 1.96 * stderr, value + 1.96 * stderr, "normal"
    return None, None, None


def _number(value: Any) -> float | None:
    """Return a finite number; lm-eval writes "N/A" where it has none."""
    if isinstance(value, (str, bytes)) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _shown(key: str) -> str:
    return key.removesuffix(",none")
