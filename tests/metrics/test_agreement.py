import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.agreement import agreement, majority

R, C = "refusal", "compliance"
LABEL = st.sampled_from([R, C, None])


def by_judge(*columns):
    return {f"j{place}": dict(enumerate(column)) for place, column in enumerate(columns)}


def test_a_published_example_of_krippendorff_s_alpha():
    # Krippendorff, Computing Krippendorff's alpha-reliability (2011), section A: binary data, two observers.
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    found = agreement(by_judge([[C, R][x] for x in first], [[C, R][x] for x in second]))
    assert found.alpha == pytest.approx(0.095, abs=5e-4)
    assert found.differ == [0, 2, 5, 8]


def test_kappa_of_a_table_worked_by_hand():
    # 20 both refusal, 5 and 10 apart, 15 both compliance: (0.7 - 0.5) / 0.5.
    first = [R] * 25 + [C] * 25
    second = [R] * 20 + [C] * 5 + [R] * 10 + [C] * 15
    found = agreement(by_judge(first, second))
    assert found.kappa == pytest.approx(0.4)
    assert (found.n, len(found.differ)) == (50, 15)


def test_answers_that_one_of_two_judges_left_unscored_are_not_compared():
    found = agreement(by_judge([R, C, None, R], [R, C, R, None]))
    assert (found.n, found.kappa, found.alpha, found.differ) == (2, 1.0, 1.0, [])


def test_three_judges_have_an_alpha_and_no_kappa():
    found = agreement(by_judge([R, C, R, C], [R, C, R, C], [R, C, C, None]))
    assert found.kappa is None
    assert 0 < found.alpha < 1
    assert found.differ == [2]


@pytest.mark.parametrize("columns", [([R, R], [R, R]), ([None], [None]), ([R], [None])])
def test_no_agreement_is_claimed_where_verdicts_do_not_vary(columns):
    found = agreement(by_judge(*columns))
    assert (found.kappa, found.alpha) == (None, None)


def test_judges_of_other_answers_are_not_compared():
    with pytest.raises(ValueError, match="same answers"):
        agreement({"a": {"1": R}, "b": {"2": R}})
    with pytest.raises(ValueError, match="two judges"):
        agreement({"a": {"1": R}})


def test_the_majority_takes_more_than_half_of_the_verdicts():
    said = majority(by_judge([R, R, R, None, None], [R, C, None, None, C], [C, C, C, None, C]))
    assert list(said.values()) == [R, C, None, None, C]


@given(st.lists(st.tuples(LABEL, LABEL, LABEL), min_size=1, max_size=30))
def test_agreement_is_at_most_1_and_the_same_in_any_order_of_judges(rows):
    columns = list(zip(*rows, strict=True))
    found, turned = agreement(by_judge(*columns)), agreement(by_judge(*reversed(columns)))
    assert found.alpha is None or found.alpha <= 1
    assert found.alpha == (None if turned.alpha is None else pytest.approx(turned.alpha))
    assert found.differ == turned.differ
