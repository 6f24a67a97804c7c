"""Chosen experts on prompts that did not choose them; benchmarks/inference_experts.py measures the error rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from harness.experts.held_out import Side, difference_in_use, topic


def side(rates, first_group=0, groups=None):
    """Prompts that count once each, with the use of one expert."""
    rates = np.asarray(rates, dtype=float)
    labels = np.arange(len(rates)) + first_group if groups is None else np.asarray(groups)
    return Side(rates[:, None], np.ones(len(rates)), labels)


def test_a_difference_has_welch_s_interval():
    found = difference_in_use(side([1, 2, 3, 4]), side([0, 0, 1, 1], first_group=9))
    assert found.value[0] == 2
    a, b = (5 / 3) / 4, (1 / 3) / 4
    reach = t.ppf(0.975, (a + b) ** 2 / (a**2 / 3 + b**2 / 3)) * (a + b) ** 0.5
    assert (found.low[0], found.high[0]) == pytest.approx((2 - reach, 2 + reach))


def test_prompts_weigh_as_many_tokens_as_they_have():
    many = Side(np.array([[30.0], [0.0]]), np.array([30.0, 10.0]), np.arange(2))
    assert difference_in_use(many, side([0, 0.5], first_group=5)).value[0] == pytest.approx(0.75 - 0.25)


def test_a_prompt_that_is_repeated_is_no_further_evidence():
    once = difference_in_use(side([1, 2, 3, 4]), side([0, 1, 0, 1], first_group=9))
    twice = difference_in_use(
        side([1, 1, 2, 2, 3, 3, 4, 4], groups=[0, 0, 1, 1, 2, 2, 3, 3]), side([0, 1, 0, 1], first_group=9)
    )
    assert np.concatenate(once) == pytest.approx(np.concatenate(twice))


def test_what_a_pair_shares_does_not_widen_the_interval_between_its_sides():
    draw = np.random.default_rng(0)
    common = draw.normal(size=40)
    harmful, twins = common + 1 + 0.1 * draw.normal(size=40), common + 0.1 * draw.normal(size=40)
    paired = difference_in_use(side(harmful), side(twins))
    apart = difference_in_use(side(harmful), side(twins, first_group=100))
    assert (apart.high - apart.low)[0] > 5 * (paired.high - paired.low)[0]


def test_an_expert_that_all_use_alike_has_no_interval():
    found = difference_in_use(side([0, 0, 0]), side([0, 0], first_group=5))
    assert found.value[0] == 0
    assert np.isnan([found.low[0], found.high[0]]).all()


@pytest.mark.parametrize("twins_per_pair", [1, 3])
def test_the_share_of_topic_does_not_depend_on_how_many_twins_there_are(twins_per_pair):
    draw = np.random.default_rng(1)
    harmful = 2 + 0.2 * draw.normal(size=60)
    control = np.repeat(1 + 0.2 * draw.normal(size=60), twins_per_pair)
    ordinary = side(0.2 * draw.normal(size=30), first_group=1_000)
    found = topic(side(harmful), side(control, groups=np.repeat(np.arange(60), twins_per_pair)), ordinary)
    assert found.share.value == pytest.approx(0.5, abs=0.05)
    assert found.share.low < 0.5 < found.share.high
    assert found.share.high - found.share.low < 0.2


def test_fieller_s_ends_are_the_shares_at_which_the_test_turns():
    """At an end, explained - share * difference is just significant: a check of the formula by its own definition."""
    draw = np.random.default_rng(2)
    h, c, o = 1 + draw.normal(size=30), 0.5 + draw.normal(size=30), draw.normal(size=50)
    found = topic(side(h), side(c), side(o, first_group=100))
    v = {name: x.var(ddof=1) / len(x) for name, x in (("h", h), ("c", c), ("o", o))}
    both = np.cov(h, c)[0, 1] / 30
    freedom = (v["h"] + v["o"]) ** 2 / (v["h"] ** 2 / 29 + v["o"] ** 2 / 49)
    for end in (found.share.low, found.share.high):
        distance = (c.mean() - o.mean()) - end * (h.mean() - o.mean())
        variance = v["c"] + end**2 * v["h"] + (1 - end) ** 2 * v["o"] - 2 * end * both
        assert abs(distance) / variance**0.5 == pytest.approx(t.ppf(0.975, freedom))


def test_there_is_no_share_of_a_difference_that_is_not_shown():
    found = topic(side([0, 1, 0, 1.1]), side([0, 1, 0, 1]), side([0, 1, 0, 1], first_group=50))
    assert found.share == (None, None, None)
