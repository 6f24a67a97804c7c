"""From samples to an outcome; the truth is known, since the samples are simulated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import BadInputError
from harness.gate.decide import _difference, _share, overall
from harness.gate.decision import EXIT_CODES
from harness.gate.samples import Samples
from harness.gate.schema import Gate

LEVEL = 0.05
SIMULATIONS = 2000
# Of 2,000 simulations at the level, so many more come by chance once in a thousand.
MOST = SIMULATIONS * LEVEL + 3.1 * (SIMULATIONS * LEVEL * (1 - LEVEL)) ** 0.5


def gate(**bound):
    return Gate(name="g", metric="refusal_rate", task="t", **bound)


def samples(outcomes):
    named = {str(index): outcome for index, outcome in enumerate(outcomes)}
    words = ("refusal", "compliance")
    return Samples("v", "t", "refusal_rate", "builtin", named, dict.fromkeys(named, ""), words)


def of_counts(successes, n, unscored=0):
    return samples([True] * successes + [None] * unscored + [False] * (n - successes - unscored))


def pair(first_only, second_only, both, neither):
    mine = [True] * first_only + [False] * second_only + [True] * both + [False] * neither
    theirs = [False] * first_only + [True] * second_only + [True] * both + [False] * neither
    return samples(mine), samples(theirs)


@pytest.mark.parametrize(
    ("side", "limit", "n"), [("at_least", 0.95, 132), ("at_least", 0.9, 60), ("at_most", 0.05, 200)]
)
def test_a_share_that_is_just_not_kept_passes_no_more_often_than_the_level(side, limit, n):
    """The bound itself is the nearest truth at which a pass would be false."""
    drawn, counts = np.unique(np.random.default_rng(0).binomial(n, limit, SIMULATIONS), return_counts=True)
    outcomes = [_share(gate(**{side: limit}), of_counts(int(k), n), LEVEL).outcome for k in drawn]
    of = {v: sum(c for c, w in zip(counts, outcomes, strict=True) if w == v) for v in ("PASS", "FAIL")}
    assert 0 < of["PASS"] <= MOST
    assert 0 < of["FAIL"] <= MOST


@pytest.mark.parametrize(
    ("bound", "difference", "discordant"),
    [
        ("at_most_below", -0.15, 0.25),
        ("at_most_above", 0.15, 0.2),
        ("above_by", 0.0, 0.3),
        ("below_by", -0.1, 0.3),
    ],
)
def test_a_difference_that_is_just_not_kept_passes_no_more_often_than_the_level(
    bound, difference, discordant
):
    n = 20
    first, second = (discordant + difference) / 2, (discordant - difference) / 2
    truth = [first, second, 0.4 * (1 - discordant), 0.6 * (1 - discordant)]
    drawn = np.random.default_rng(1).multinomial(n, truth, SIMULATIONS)
    asked = gate(against="other", **{bound: abs(difference)})
    rows, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
    passes = 0
    for (a, b), count in zip(rows.tolist(), counts.tolist(), strict=True):
        # What the pairs that agree come to has no part in it.
        mine, theirs = pair(a, b, (n - a - b) // 2, n - a - b - (n - a - b) // 2)
        passes += count * (_difference(asked, mine, theirs, LEVEL).outcome == "PASS")
    assert 0 < passes <= MOST


@given(n=st.integers(80, 200), data=st.data())
def test_an_unscored_answer_never_helps(n, data):
    """Whatever the unscored answers were, a pass stays a pass and a fail a fail."""
    successes = data.draw(st.integers(0, n))
    unscored = data.draw(st.integers(0, n - successes))
    asked = gate(at_least=0.9) if data.draw(st.booleans()) else gate(at_most=0.1)
    outcome = _share(asked, of_counts(successes, n, unscored), LEVEL).outcome
    filled = {_share(asked, of_counts(successes + k, n), LEVEL).outcome for k in (0, unscored)}
    if outcome != "INCONCLUSIVE":
        assert filled == {outcome}


def test_an_unscored_answer_of_either_side_of_a_pair_counts_against_the_gate():
    mine, theirs = samples([True] * 100 + [None] * 20), samples([True] * 120)
    asked = gate(against="other", at_most_below=0.1)
    assert _difference(asked, mine, theirs, LEVEL).outcome == "INCONCLUSIVE"
    assert _difference(asked, samples([True] * 120), theirs, LEVEL).outcome == "PASS"


@pytest.mark.parametrize(
    ("bound", "n", "takes"),
    [({"at_least": 0.95}, 58, "59 or more"), ({"at_most": 0.01}, 100, "299 or more")],
)
def test_a_bound_that_so_few_samples_cannot_show_is_refused_with_the_number_it_takes(bound, n, takes):
    with pytest.raises(
        BadInputError, match=rf"cannot be shown on {n} samples, whatever they come to; it takes {takes}"
    ):
        _share(gate(**bound), of_counts(n, n), LEVEL)


def test_a_difference_that_so_few_samples_cannot_show_whatever_they_come_to_is_refused():
    with pytest.raises(BadInputError, match=r"cannot be shown on 5 samples, .*; it takes 119 or more"):
        _difference(gate(against="other", above_by=0.95), *pair(5, 0, 0, 0), LEVEL)


def test_what_the_other_scored_leaves_a_gate_open_and_is_no_bad_input():
    """Nothing is above what is always right, which is known only when it was measured."""
    decision = _difference(gate(against="other", above_by=0.1), *pair(0, 0, 90, 0), LEVEL)
    assert decision.outcome in ("INCONCLUSIVE", "FAIL")
    open_ = _difference(gate(against="other", above_by=0.01), *pair(0, 0, 90, 0), LEVEL)
    assert open_.outcome == "INCONCLUSIVE"
    # Twenty pairs that agree rule out no loss of 2 points; twenty that differ for the better would.
    few = gate(against="other", at_most_below=0.02)
    assert _difference(few, *pair(0, 0, 20, 0), LEVEL).outcome == "INCONCLUSIVE"
    assert _difference(few, *pair(20, 0, 0, 0), LEVEL).outcome == "PASS"


def test_near_duplicates_decide_by_one_prompt_per_group():
    """Of 120 refusals in 30 groups, 30 are evidence: at least 0.975 * 100 % needs 119, 90 % needs 29."""
    alike = replace(of_counts(120, 120), groups={str(i): i // 4 for i in range(120)}, seed=7)
    assert _share(gate(at_least=0.95), of_counts(120, 120), LEVEL).outcome == "PASS"
    with pytest.raises(
        BadInputError, match="cannot be shown on 30 samples, whatever they come to; it takes 59"
    ):
        _share(gate(at_least=0.95), alike, LEVEL)
    decision = _share(gate(at_least=0.9), alike, LEVEL)
    assert (decision.outcome, decision.n) == ("PASS", 30)
    assert (
        "100.0% (120 of 120); of one prompt per group of near-duplicates 30 of 30, at least 90."
        in decision.seen
    )
    # The members of a group differ, and which of them decides is drawn beforehand, from the seed alone.
    mixed = replace(samples([place % 4 == 0 for place in range(120)]), groups=alike.groups, seed=7)
    assert 0 < mixed.independent.successes < 30
    assert mixed.independent.succeeded.keys() == alike.independent.succeeded.keys()
    theirs = replace(of_counts(120, 120), groups=alike.groups, seed=7)
    compared = _difference(gate(against="other", at_most_below=0.2), alike, theirs, LEVEL)
    assert (compared.outcome, compared.n) == ("PASS", 30)
    assert "of one prompt per group of near-duplicates" in compared.seen


@pytest.mark.parametrize(
    ("bound", "counts", "outcome"),
    [
        ({"at_least": 0.95}, (132, 132), "PASS"),
        ({"at_least": 0.95}, (126, 132), "INCONCLUSIVE"),
        ({"at_least": 0.95}, (100, 132), "FAIL"),
        ({"at_most": 0.05}, (0, 132), "PASS"),
        ({"at_most": 0.05}, (6, 132), "INCONCLUSIVE"),
        ({"at_most": 0.05}, (30, 132), "FAIL"),
    ],
)
def test_outcomes_of_a_share_and_what_is_seen(bound, counts, outcome):
    decision = _share(gate(**bound), of_counts(*counts), LEVEL)
    assert decision.outcome == outcome
    assert f"{counts[0]} of {counts[1]}" in decision.seen
    limit = next(iter(bound.values()))
    # The bound that is shown lies on the side of the limit that the outcome says.
    if outcome == "PASS":
        assert decision.bound >= limit if "at_least" in bound else decision.bound <= limit
    if outcome == "FAIL":
        assert decision.bound < limit if "at_least" in bound else decision.bound > limit


def test_one_fail_outweighs_what_is_inconclusive_and_that_outweighs_passes():
    good = _share(gate(at_least=0.9), of_counts(100, 100), LEVEL)
    open_ = _share(gate(at_least=0.9), of_counts(92, 100), LEVEL)
    bad = _share(gate(at_least=0.9), of_counts(10, 100), LEVEL)
    assert [d.outcome for d in (good, open_, bad)] == ["PASS", "INCONCLUSIVE", "FAIL"]
    assert overall([good, good]) == "PASS"
    assert overall([good, open_]) == "INCONCLUSIVE"
    assert overall([open_, bad, good]) == "FAIL"
    assert EXIT_CODES == {"PASS": 0, "FAIL": 3, "INCONCLUSIVE": 4}
