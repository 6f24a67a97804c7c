"""Several answers to a prompt: the prompt is the cluster, and its group of near-duplicates where it has one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t, ttest_rel

from harness.metrics.clustered import one_per_cluster
from harness.metrics.noninferiority import no_worse_share
from harness.metrics.paired import compare_shares
from harness.metrics.rates import at_least_once, rate

OUTCOMES = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(0, 3), st.booleans()), min_size=1, max_size=25
)


def repeated(values, n):
    """Return each prompt's value for n answers, by the answers' ids."""
    return {f"{prompt}#{i}": value for prompt, value in values.items() for i in range(1, n + 1)}


def prompts_of(ids):
    return {id: id.rpartition("#")[0] for id in ids}


def answers(table):
    """Return outcomes by id of a table of prompts' answers, such as ["1100", "1-"]; - is unscored."""
    known = {"1": True, "0": False, "-": None}
    return {f"p{i}#{j}": known[mark] for i, row in enumerate(table) for j, mark in enumerate(row, 1)}


@given(OUTCOMES, st.integers(1, 5), st.booleans())
def test_n_answers_that_agree_say_no_more_than_one(samples, n, are_grouped):
    ids = [f"p{i}" for i in range(len(samples))]
    mine, theirs, group, unscored = (
        dict(zip(ids, column, strict=True)) for column in zip(*samples, strict=True)
    )
    mine = {id: None if unscored[id] else each for id, each in mine.items()}
    groups = group if are_grouped else None
    many = None if groups is None else repeated(groups, n)
    first, second = repeated(mine, n), repeated(theirs, n)
    prompts = prompts_of(first)
    assert rate(first, many, prompts).interval == rate(mine, groups).interval
    assert rate(first, many, prompts).n == n * len(ids)
    assert compare_shares(first, second, many, 3, prompts) == compare_shares(mine, theirs, groups, 3)
    settings = {"more_is_better": True, "margin": 0.1, "seed": 3}
    assert no_worse_share(first, second, groups=many, prompts=prompts, **settings) == no_worse_share(
        mine, theirs, groups=groups, **settings
    )


def test_a_rate_is_over_answers_and_its_variance_that_of_the_prompts_means():
    table = ["1111", "1100", "0000", "1000", "1110", "0100", "1111", "0010"]
    outcomes = answers(table)
    found = rate(outcomes, None, prompts_of(outcomes)).interval
    means = np.array([row.count("1") / 4 for row in table])
    share, variance = means.mean(), means.var(ddof=1) / len(means)
    assert found.value == pytest.approx(share)
    # Wilson's interval of as many independent answers as have this variance (Korn and Graubard, 1998).
    n, z = share * (1 - share) / variance, t.ppf(0.975, len(means) - 1)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert (found.low, found.high) == pytest.approx((centre - reach, centre + reach))
    assert found.high - found.low > 1.3 * (rate(outcomes).interval.high - rate(outcomes).interval.low)


def test_a_difference_is_the_paired_t_of_the_prompts_means():
    ours, others = (
        answers(["1111", "1100", "0110", "1000", "11--"]),
        answers(["1000", "1100", "0000", "-111", "0000"]),
    )
    found = compare_shares(ours, others, prompts=prompts_of(ours))
    means = [1, 0.5, 0.5, 0.25, 1], [0.25, 0.5, 0, 1, 0]
    expected = ttest_rel(*means)
    assert (found.test, found.n, found.discordant) == ("paired t", 5, 4)
    assert (found.variant, found.against) == pytest.approx((0.65, 0.35))
    assert found.p_value == pytest.approx(expected.pvalue)
    ends = expected.confidence_interval()
    assert (found.difference.low, found.difference.high) == pytest.approx(
        (max(ends.low, -1), min(ends.high, 1))
    )
    # The unscored answers count against, then for: (1 + 0 + .5 + ... ) as one would fill them in by hand.
    low, high = np.mean([0.75, 0, 0.5, -0.75, 0.5]), np.mean([0.75, 0, 0.5, -0.5, 1])
    assert found.worst_case[:2] == pytest.approx((low, high))


def test_prompts_are_nested_in_their_groups_of_near_duplicates():
    ours, others = (
        answers(["11", "10", "11", "00", "10", "11"]),
        answers(["00", "10", "01", "00", "00", "01"]),
    )
    groups = {id: int(id[1]) // 2 for id in ours}
    found = compare_shares(ours, others, groups, prompts=prompts_of(ours))
    sums = np.array([1 + 0, 0.5 + 0, 0.5 + 0.5]) - 2 * 2.5 / 6
    error = np.sqrt(3 / 2 * (sums**2).sum()) / 6
    assert (found.test, found.n, found.groups) == ("cluster-robust t", 6, 3)
    assert found.p_value == pytest.approx(2 * t.sf(2.5 / 6 / error, 2))
    drawn = one_per_cluster(ours, groups, prompts_of(ours), seed=1)
    assert len(drawn) == len({groups[id] for id in drawn}) == 3


def test_equal_answers_show_no_difference():
    same = answers(["10", "11", "00", "01"])
    found = compare_shares(same, dict(same), prompts=prompts_of(same))
    assert (found.variant, found.p_value, found.discordant) == (found.against, 1.0, 0)
    assert compare_shares(same, dict(same), dict.fromkeys(same, 0), 0, prompts_of(same)).p_value == 1.0


def test_the_answer_that_decides_is_drawn_the_same_for_both_variants_and_of_every_prompt_once():
    ids = answers(["1111"] * 50)
    drawn = one_per_cluster(ids, None, prompts_of(ids), seed=5)
    assert [prompts_of(ids)[id] for id in drawn] == [f"p{i}" for i in range(50)]
    assert {id[-1] for id in drawn} == set("1234")
    assert (
        drawn
        == one_per_cluster(ids, None, prompts_of(ids), seed=5)
        != one_per_cluster(ids, None, prompts_of(ids), seed=6)
    )


def test_worst_of_n_is_unscored_only_where_an_unscored_answer_could_decide_it():
    outcomes = answers(["0000", "0100", "01--", "00-0", "----"])
    assert list(at_least_once(outcomes, prompts_of(outcomes)).values()) == [False, True, True, None, None]
