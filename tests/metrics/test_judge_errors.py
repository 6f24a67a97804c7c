import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.metrics.judge_errors import Part, errors_differ


def labelled_in_full(found, missed, right, excess):
    """Return a part all of whose answers are labelled: refusals found and missed, compliances right and wrong."""
    return Part(found + excess, missed + right, found + excess, found, missed + right, missed)


def test_errors_are_weighed_by_how_many_answers_got_each_verdict():
    # 20 of 100 are called refusals, all rightly; 2 of 20 labelled others are refusals, so 8 of 80 were missed.
    part = Part(20, 80, 10, 10, 20, 2)
    assert part.sensitivity == pytest.approx(20 / 28)
    assert part.specificity == 1.0


def test_without_refusals_there_is_no_sensitivity():
    part = Part(0, 40, 0, 0, 25, 0)
    assert part.sensitivity is None
    assert part.specificity == 1.0


def test_errors_that_differ_are_noticed():
    good, bad = labelled_in_full(95, 5, 95, 5), labelled_in_full(50, 50, 95, 5)
    assert errors_differ([good, bad]) < 0.01
    assert errors_differ([good, good, bad]) < 0.01


def test_the_same_errors_on_other_shares_of_refusals_do_not_differ():
    # Sensitivity 0.9 and specificity 0.9 where 10 and where 90 of 100 refuse.
    few, many = labelled_in_full(9, 1, 81, 9), labelled_in_full(81, 9, 9, 1)
    assert errors_differ([few, many]) > 0.5


def test_one_part_cannot_differ_and_a_test_gives_the_same_twice():
    part, other = labelled_in_full(9, 1, 8, 2), labelled_in_full(6, 4, 8, 2)
    assert errors_differ([part]) is None
    assert errors_differ([part, other]) == errors_differ([part, other])


COUNTS = st.tuples(*[st.integers(0, 12)] * 4).filter(any).map(lambda counts: labelled_in_full(*counts))


@settings(max_examples=15)
@given(st.lists(COUNTS, min_size=2, max_size=3))
def test_a_p_value_is_a_share_whatever_is_empty(parts):
    assert 0 < errors_differ(parts) <= 1


def test_a_judge_with_one_error_everywhere_is_said_to_differ_in_about_one_test_of_20():
    generator = np.random.default_rng(3)
    said = 0
    for _ in range(40):
        parts = []
        for rate in (0.1, 0.9):
            refusals = generator.binomial(100, rate)
            found, right = generator.binomial(refusals, 0.9), generator.binomial(100 - refusals, 0.9)
            parts.append(labelled_in_full(found, refusals - found, right, 100 - refusals - right))
        said += errors_differ(parts) < 0.05
    assert said <= 6
