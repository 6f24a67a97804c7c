"""Which experts carry an effect: orders, steps, and the number that carries half."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.carry import half, half_of_each, orders, sizes


def curve(*refused, n=10):
    """Return a curve whose steps refuse so many of n prompts."""
    return [{str(i): i < count for i in range(n)} for count in refused]


@given(st.integers(1, 200), st.integers(1, 30))
def test_steps_go_from_none_to_all_evenly(experts, steps):
    found = sizes(experts, steps)
    assert (found[0], found[-1]) == (0, experts)
    assert len(found) == min(steps, experts) + 1
    gaps = {b - a for a, b in itertools.pairwise(found)}
    assert max(gaps) - min(gaps) <= 1


@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 9))
def test_orders_begin_by_rank_hold_everything_once_and_repeat_by_seed(experts, n, seed):
    ranked = list(range(experts))
    found = orders(ranked, n, seed)
    assert found[0] == ranked
    assert all(sorted(order) == ranked for order in found)
    assert orders(ranked, n + 2, seed)[: n + 1] == found


def test_orders_differ_from_rank_and_by_seed():
    ranked = list(range(12))
    first, second = orders(ranked, 5, 0), orders(ranked, 5, 1)
    assert len({tuple(order) for order in [*first, *second[1:]]}) == 11


def test_half_is_the_first_step_that_has_come_half_of_the_way():
    put_back = [0, 2, 4, 6]
    # From 10 of 10 to 2 of 10: half of the way is 6.
    assert half(put_back, [curve(10, 7, 6, 2)]).value == 4
    assert half(put_back, [curve(10, 6, 6, 2)]).value == 2
    assert half(put_back, [curve(10, 10, 10, 2)]).value == 6
    assert half(put_back, [curve(10, 7, 6, 2), curve(10, 6, 6, 2)]).value == 3
    assert half_of_each(put_back, [curve(10, 7, 6, 2), curve(10, 6, 6, 2)]) == [4, 2]


def test_without_an_effect_there_is_no_half():
    assert half([0, 1], [curve(3, 3)]) is None
    assert half([0, 1], [curve(3, 5)]) is None
    nothing = [{"a": None}, {"a": None}]
    assert half([0, 1], [nothing]) is None


def test_an_effect_that_resamples_do_not_have_gets_no_interval():
    found = half([0, 1, 2], [curve(1, 1, 0)])
    assert (found.value, found.low, found.high) == (2, None, None)


def test_the_interval_is_over_prompts_and_has_a_seed():
    found = half([0, 1, 2, 3], [curve(20, 12, 8, 0, n=20)], seed=2)
    assert (found.low, found.value, found.high) == (1, 2, 3)
    assert half([0, 1, 2, 3], [curve(20, 12, 8, 0, n=20)], seed=2) == found


def test_unscored_answers_are_left_out():
    steps = curve(4, 2, 0, n=4)
    steps[1] = {**steps[1], "3": None}
    # 2 of 3 that were scored: not yet half.
    assert half([0, 1, 2], [steps]).value == 2


@given(st.lists(st.integers(0, 10), min_size=2, max_size=6))
def test_half_is_a_step_behind_the_first(refused):
    found = half(list(range(len(refused))), [curve(*refused)])
    assert (found is None) == (refused[0] <= refused[-1])
    if found is not None:
        assert 1 <= found.value <= len(refused) - 1
        assert found.low is None or found.low <= found.value <= found.high


def test_prompts_that_nearly_repeat_one_another_are_resampled_together():
    steps = [20, 13, 8, 0]

    def of(times):
        return [{f"{i} {k}": i < count for i in range(20) for k in range(times)} for count in steps]

    groups = {id: int(id.partition(" ")[0]) for id in of(4)[0]}
    alone, apart = half([0, 1, 2, 3], [of(1)]), half([0, 1, 2, 3], [of(4)])
    together = half([0, 1, 2, 3], [of(4)], groups=groups)
    assert (together.low, together.high) == (alone.low, alone.high)
    assert apart.high - apart.low < together.high - together.low
