"""Figures, intervals and item scores are read out of lm-eval's results without loss."""

from typing import Any

import pytest

from harness.base.errors import BadInputError, HarnessError
from harness.capability.results import CapabilityResult
from harness.capability.results import capability_result as read_result
from harness.capability.scoring import Scoring

_ACC = Scoring(["acc"], {"acc": True}, frozenset())


def capability_result(
    task: str, results: dict[str, Any], metric: str | None = None, scoring: Scoring = _ACC
) -> CapabilityResult:
    return read_result(task, results, scoring, metric)


def _sample(doc_id: int, score: float | None, answer: Any = (-1.0, False), **more: Any) -> dict[str, Any]:
    sample = {"doc_id": doc_id, "doc": {}, "filter": "none", "filtered_resps": [answer], "acc": score}
    return sample | more


def _results(samples: list[dict[str, Any]], **figures: Any) -> dict[str, Any]:
    return {
        "results": {"t": {"alias": "t", "sample_len": len(samples), **figures}},
        "samples": {"t": samples},
    }


def test_shares_get_wilsons_interval() -> None:
    samples = [_sample(n, float(n < 8)) for n in range(10)]
    result = capability_result("t", _results(samples, **{"acc,none": 0.8, "acc_stderr,none": 0.1333}))
    assert (result.metric, result.value, result.stderr, result.n) == ("acc", 0.8, 0.1333, 10)
    assert result.interval == "wilson"
    # (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = 0.8, n = 10, z = 1.96
    assert (result.low, result.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert result.items == {str(n): float(n < 8) for n in range(10)}
    assert result.unparsed is None


def test_other_scores_get_students_interval() -> None:
    samples = [_sample(n, score) for n, score in enumerate((2.0, 4.0, 6.0))]
    result = capability_result("t", _results(samples, **{"acc,none": 4.0, "acc_stderr,none": 1.1547}))
    assert (result.interval, result.unit) == ("t", "number")
    # t with 2 degrees of freedom: 4.3027; standard error 2 / sqrt(3)
    assert (result.low, result.high) == pytest.approx((4 - 4.3027 * 1.1547, 4 + 4.3027 * 1.1547), abs=1e-3)


def test_the_interval_of_shares_stays_within_0_and_1() -> None:
    samples = [_sample(0, 0.5), _sample(1, 1.0)]
    result = capability_result("t", _results(samples, **{"acc,none": 0.75, "acc_stderr,none": 0.25}))
    assert (result.low, result.high, result.interval, result.unit) == (0.0, 1.0, "t", "share")


def test_a_few_equal_scores_show_no_error_of_0() -> None:
    samples = [_sample(n, 0.25) for n in range(8)]
    result = capability_result("t", _results(samples, **{"acc,none": 0.25, "acc_stderr,none": 0.0}))
    assert (result.value, result.stderr, result.low, result.high, result.interval) == (0.25, *[None] * 4)


def test_what_is_no_mean_of_items_has_lm_evals_own_error() -> None:
    samples = [_sample(0, 0.5), _sample(1, 1.0)]
    figures = {"acc,none": 0.75, "acc_stderr,none": 0.25}
    by_config = Scoring(["acc"], {"acc": True}, frozenset({"acc"}))
    by_arithmetic = {"acc,none": 0.8, "acc_stderr,none": 0.25}
    for result in (
        capability_result("t", _results(samples, **figures), scoring=by_config),
        capability_result("t", _results(samples, **by_arithmetic)),
    ):
        assert (result.is_mean, result.interval) == (False, "normal")
        assert result.high == pytest.approx(result.value + 1.96 * 0.25)
    assert capability_result("t", _results(samples, **figures)).is_mean


def test_without_a_standard_error_there_is_no_interval() -> None:
    samples = [_sample(0, None), _sample(1, None)]
    result = capability_result("t", _results(samples, **{"acc,none": 12.5, "acc_stderr,none": "N/A"}))
    assert (result.value, result.stderr, result.low, result.high, result.interval) == (12.5, *[None] * 4)
    assert result.items == {}


def test_the_metric_asked_for_is_reported_and_the_others_are_kept() -> None:
    samples = [_sample(0, 1.0, acc_norm=0.0), _sample(1, 1.0, acc_norm=1.0)]
    figures = {"acc,none": 1.0, "acc_stderr,none": 0.0, "acc_norm,none": 0.5, "acc_norm_stderr,none": 0.5}
    assert capability_result("t", _results(samples, **figures)).metric == "acc"
    result = capability_result("t", _results(samples, **figures), "acc_norm")
    assert (result.metric, result.value, result.others) == ("acc_norm", 0.5, {"acc": 1.0})
    assert result.items == {"0": 0.0, "1": 1.0}
    with pytest.raises(BadInputError, match="has no metric 'f1'"):
        capability_result("t", _results(samples, **figures), "f1")


def test_answers_without_a_choice_are_counted_for_the_reported_filter_only() -> None:
    samples = [
        _sample(0, None, "42", filter="strict", exact_match=1.0),
        _sample(1, None, "[invalid]", filter="strict", exact_match=0.0),
        _sample(0, None, "42", filter="flexible", exact_match=1.0),
        _sample(1, None, "7", filter="flexible", exact_match=0.0),
    ]
    figures = {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.5, "exact_match,flexible": 0.5}
    result = capability_result("t", _results(samples, **figures))
    assert (result.metric, result.n, result.unparsed) == ("exact_match,strict", 2, 1)
    assert result.items == {"0": 1.0, "1": 0.0}
    assert capability_result("t", _results(samples, **figures), "exact_match,flexible").unparsed == 0


def test_items_are_named_by_their_own_id_when_it_is_unique() -> None:
    figures = {"acc,none": 0.5, "acc_stderr,none": 0.5}
    unique = [_sample(0, 1.0, doc={"id": "p/7"}), _sample(1, 0.0, doc={"id": "p/9"})]
    assert capability_result("t", _results(unique, **figures)).items == {"p/7": 1.0, "p/9": 0.0}
    twice = [_sample(0, 1.0, doc={"id": "p"}), _sample(1, 0.0, doc={"id": "p"})]
    assert capability_result("t", _results(twice, **figures)).items == {"0": 1.0, "1": 0.0}


def test_a_log_likelihood_that_is_no_number_fails_the_run() -> None:
    samples = [_sample(0, 1.0), _sample(1, 1.0, (float("nan"), False))]
    with pytest.raises(HarnessError, match="'t', item 1: the log-likelihood is not a number"):
        capability_result("t", _results(samples, **{"acc,none": 1.0}))


@pytest.mark.parametrize(("value", "interval"), [(0.75, "wilson"), (0.5, "normal")])
def test_a_group_gets_wilsons_interval_only_if_every_item_counts_once(value: float, interval: str) -> None:
    results = {
        "results": {"g": {"alias": "g", "acc,none": value, "acc_stderr,none": 0.2}},
        "group_subtasks": {"g": ["a", "b"]},
        "samples": {"a": [_sample(n, 1.0) for n in range(3)], "b": [_sample(0, 0.0)]},
    }
    result = capability_result("g", results)
    assert result.items == {"a/0": 1.0, "a/1": 1.0, "a/2": 1.0, "b/0": 0.0}
    assert (result.n, result.interval) == (4, interval)


def test_a_group_without_a_figure_of_its_own_is_refused() -> None:
    with pytest.raises(BadInputError, match="name its tasks one by one"):
        capability_result("g", {"results": {"g": {"alias": "g"}}, "samples": {}})
