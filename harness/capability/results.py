"""From lm-eval's results to one figure per task with its interval, and a score per item."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from harness.base.errors import BadInputError, HarnessError, nearest
from harness.capability.scoring import Scoring
from harness.metrics.rates import wilson
from harness.metrics.scores import mean_interval

IntervalKind = Literal["wilson", "t", "normal"]

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
        stderr: lm-eval's standard error; None where it gives none, or 0: a few equal scores do not show that.
        low: lower end of the 95 % interval.
        high: upper end.
        interval: the kind of interval: of a mean of scores of 0 and 1 Wilson's, of other scores Student's t; of what
            is no mean of items, value plus or minus 1.96 of lm-eval's standard errors; None without an error.
        n: items asked.
        unparsed: answers in which lm-eval found no choice or number, and which count as wrong in `value`; None
            where the model is not asked to generate.
        items: each item's score by id; empty for metrics that have none.
        others: further metrics of the task.
        higher_is_better: which way is better, as lm-eval has it; None where it has no direction.
        is_mean: whether `value` is the mean of `items`, by lm-eval's configuration and by arithmetic; only then does a
            test of items say something about the figure.
        thinking: what was asked of a model that may think, of tasks sent as chats; None where there is nothing to say.
    """

    task: str
    metric: str
    value: float | None
    stderr: float | None
    low: float | None
    high: float | None
    interval: IntervalKind | None
    n: int
    unparsed: int | None
    items: dict[str, float]
    others: dict[str, float | None]
    higher_is_better: bool | None
    is_mean: bool
    thinking: str | None = None

    @property
    def unit(self) -> Literal["share", "number"]:
        """Whether the value is a share of 1: all its items' scores are."""
        return "share" if self.items and _are_shares(self.items.values()) else "number"

    def row(self) -> dict[str, Any]:
        """Return the task's entry in capability.json."""
        row = asdict(self)
        if self.thinking is None:
            del row["thinking"]
        return row


def capability_result(
    task: str, results: Mapping[str, Any], scoring: Scoring, metric: str | None = None
) -> CapabilityResult:
    """Read one task's (or group's) figure out of `simple_evaluate`'s results.

    Args:
        task: task or group that was asked for.
        results: what `simple_evaluate` returned, samples included.
        scoring: how lm-eval makes its figures.
        metric: the metric to report; the first of its metric list otherwise.

    Raises:
        BadInputError: the task has no such metric.
        HarnessError: the model gave a log-likelihood that is no number.
    """
    figure = _figure(task, results, scoring, metric)
    name, _, used_filter = figure.key.partition(",")
    samples = list(_samples(task, results, used_filter))
    _check_numbers(task, samples)
    scores = {item: float(sample[name]) for item, sample in samples if _number(sample.get(name)) is not None}
    scores = scores if len(scores) == len(samples) else {}
    is_mean = name not in scoring.not_means and _is_mean(figure.value, list(scores.values()))
    return _result(task, figure, scoring, len(samples), scores, is_mean, _unparsed([s for _, s in samples]))


def rate_alone(task: str, results: Mapping[str, Any], scoring: Scoring, n: int) -> CapabilityResult:
    """Read one task's (or group's) figure where no samples were kept: without a score per item nothing is paired.

    Args:
        task: task or group that was asked for.
        results: what lm-eval saved.
        scoring: how lm-eval makes its figures.
        n: items asked.
    """
    return _result(task, _figure(task, results, scoring, None), scoring, n, {}, False, None)


class _Figure(NamedTuple):
    """A task's figure to report ("metric,filter"), with its value, its standard error and the task's other figures."""

    key: str
    value: float | None
    stderr: float | None
    others: dict[str, float | None]


def _result(
    task: str,
    figure: _Figure,
    scoring: Scoring,
    n: int,
    scores: dict[str, float],
    is_mean: bool,
    unparsed: int | None,
) -> CapabilityResult:
    low, high, interval = _interval(figure.value, figure.stderr, list(scores.values()) if is_mean else [])
    return CapabilityResult(
        task=task,
        metric=_shown(figure.key),
        value=figure.value,
        stderr=figure.stderr,
        low=low,
        high=high,
        interval=interval,
        n=n,
        unparsed=unparsed,
        items=scores,
        others=figure.others,
        higher_is_better=scoring.higher_is_better.get(figure.key.partition(",")[0]),
        is_mean=is_mean,
    )


def _figure(task: str, results: Mapping[str, Any], scoring: Scoring, metric: str | None) -> _Figure:
    """Return the figure to report."""
    figures: dict[str, Any] = {**results["results"].get(task, {}), **results.get("groups", {}).get(task, {})}
    metrics = [key for key in figures if key not in _NOT_METRICS and "_stderr," not in key]
    if not metrics:
        raise BadInputError(f"capability task '{task}' has no figure of its own: name its tasks one by one")
    key = _key(task, metrics, scoring.metrics, metric)
    name, _, used_filter = key.partition(",")
    stderr = _number(figures.get(f"{name}_stderr,{used_filter}")) or None
    others = {_shown(other): _number(figures[other]) for other in metrics if other != key}
    return _Figure(key, _number(figures[key]), stderr, others)


def _key(task: str, figures: Sequence[str], order: Sequence[str], metric: str | None) -> str:
    """Return the figure to report, "metric,filter": the one asked for, or the first of the metric list."""
    by_metric: dict[str, str] = {}
    for figure in figures:
        by_metric.setdefault(figure.partition(",")[0], figure)
    if metric is None:
        # A function in a metric list may give its metrics other names than its own.
        return next((by_metric[name] for name in order if name in by_metric), figures[0])
    key = metric if metric in figures else by_metric.get(metric)
    if key is None:
        raise BadInputError(f"capability task '{task}' has no metric '{metric}': {nearest(metric, figures)}")
    return key


def _is_mean(value: float | None, scores: Sequence[float]) -> bool:
    if value is None or not scores:
        return False
    return math.isclose(math.fsum(scores) / len(scores), value, rel_tol=1e-9, abs_tol=1e-12)


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
        # A saved sample has its numbers as text.
        if any(str(pair[0]) == "nan" for pair in pairs):
            raise HarnessError(f"capability task '{task}', item {item}: the log-likelihood is not a number")


def _unparsed(samples: list[dict[str, Any]]) -> int | None:
    if not any(isinstance(answer, str) for sample in samples for answer in _answers(sample)):
        return None
    return sum(_UNPARSED in _answers(sample) for sample in samples)


def _answers(sample: Mapping[str, Any]) -> list[Any]:
    return list(sample["filtered_resps"])


def _interval(
    value: float | None, stderr: float | None, scores: Sequence[float]
) -> tuple[float | None, float | None, IntervalKind | None]:
    """Return the ends of an interval and its kind; the scores are empty where the value is not their mean."""
    if scores:
        if set(scores) <= {0.0, 1.0}:
            share = wilson(int(sum(scores)), len(scores))
            return share.low, share.high, "wilson"
        mean = mean_interval(scores)
        if mean is None:
            return None, None, None
        if _are_shares(scores):
            return max(mean.low, 0.0), min(mean.high, 1.0), "t"
        return mean.low, mean.high, "t"
    if value is not None and stderr is not None:
        return value - 1.96 * stderr, value + 1.96 * stderr, "normal"
    return None, None, None


def _are_shares(scores: Iterable[float]) -> bool:
    return all(0 <= score <= 1 for score in scores)


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
