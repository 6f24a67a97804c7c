import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact, t
from statsmodels.stats.inter_rater import cohens_kappa

from harness.metrics.judged import Confusion, Verdicts, confusion, departures, figures
from harness.metrics.rates import wilson

LABELS = st.sampled_from(["refusal", "compliance"])


def counted(refusal_found, refusal_missed, compliance_found, compliance_missed):
    return Confusion(
        refusal_found=refusal_found,
        refusal_missed=refusal_missed,
        compliance_found=compliance_found,
        compliance_missed=compliance_missed,
    )


def test_agreement_is_counted_by_label_and_unscored_answers_are_in_none():
    verdicts = ["refusal", "compliance", "compliance", "refusal", None]
    labels = ["refusal", "refusal", "compliance", "compliance", "refusal"]
    assert confusion(verdicts, labels) == counted(1, 1, 1, 1)


def figures_of(refusal_found, refusal_missed, compliance_found, compliance_missed, copies=1):
    """Figures of answers with these counts, each given by so many models to a prompt of its own."""
    cells = {
        ("refusal", "refusal"): refusal_found,
        ("compliance", "refusal"): refusal_missed,
        ("compliance", "compliance"): compliance_found,
        ("refusal", "compliance"): compliance_missed,
    }
    pairs = [pair for pair, count in cells.items() for _ in range(count)]
    numbered = [(prompt, pair) for prompt, pair in enumerate(pairs) for _ in range(copies)]
    return figures(
        [verdict for _, (verdict, _) in numbered],
        [label for _, (_, label) in numbered],
        [prompt for prompt, _ in numbered],
    )


def test_figures_of_a_known_table():
    # 20 of 25 and 15 of 25; kappa = (0.7 - 0.5) / (1 - 0.5).
    found = figures_of(20, 5, 15, 10)
    assert found.accuracy.value == pytest.approx(0.7)
    assert found.sensitivity.value == pytest.approx(0.8)
    assert found.specificity.value == pytest.approx(0.6)
    assert found.precision.value == pytest.approx(20 / 30)
    assert found.kappa.value == pytest.approx(0.4)
    assert found.clusters is None


def test_shares_of_prompts_that_occur_once_have_wilson_s_interval():
    assert figures_of(20, 5, 15, 10).accuracy == wilson(35, 50)


def test_kappa_of_prompts_that_occur_once_has_the_asymptotic_interval():
    known = cohens_kappa([[20, 5], [10, 15]])
    kappa = figures_of(20, 5, 15, 10).kappa
    # The variance is times 50 / 49, the quantile is of t with 49 degrees of freedom.
    reach = t.ppf(0.975, 49) * known.std_kappa * (50 / 49) ** 0.5
    assert kappa.high - kappa.value == pytest.approx(reach)
    assert kappa.value - kappa.low == pytest.approx(reach)


def test_three_answers_alike_to_each_prompt_say_no_more_than_one():
    once, thrice = figures_of(20, 5, 15, 10), figures_of(20, 5, 15, 10, copies=3)
    assert thrice.clusters == 50
    assert (thrice.kappa.low, thrice.kappa.high) == pytest.approx((once.kappa.low, once.kappa.high))
    for name in ("accuracy", "sensitivity", "specificity", "precision"):
        one, three = getattr(once, name), getattr(thrice, name)
        assert three.value == one.value
        assert three.low <= one.low + 1e-9, name
        assert three.high >= one.high - 1e-9, name
        # As if they were three times as many, it would be 0.58 times as wide.
        assert (three.high - three.low) / (one.high - one.low) == pytest.approx(1.04, abs=0.04), name


def test_one_prompt_tells_nothing_but_the_figures():
    labels = ["refusal", "refusal", "compliance", "compliance"]
    found = figures(["refusal", "compliance", "compliance", "compliance"], labels, [0] * 4)
    assert (found.accuracy.low, found.accuracy.value, found.accuracy.high) == (0.0, 0.75, 1.0)
    assert (found.kappa.low, found.kappa.value, found.kappa.high) == (-1.0, 0.5, 1.0)


def test_nothing_is_claimed_where_there_is_nothing_to_measure():
    only_refusals = figures_of(5, 0, 0, 0)
    assert only_refusals.specificity is None
    assert only_refusals.kappa is None
    assert figures_of(0, 0, 0, 0).accuracy is None


def test_a_judge_that_says_one_thing_has_no_kappa():
    assert figures_of(0, 5, 5, 0).kappa is None


@given(st.lists(st.tuples(st.one_of(st.none(), LABELS), LABELS, st.integers(0, 20)), max_size=60))
def test_every_interval_holds_its_figure(rows):
    found = figures([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    for figure in (found.accuracy, found.sensitivity, found.specificity, found.precision, found.kappa):
        assert figure is None or figure.low <= figure.value <= figure.high


def parts_of(inside, outside, group_of):
    """Answers that people call positive: whether each in the part and each in the rest is right."""
    rows = [("part", right) for right in inside] + [("rest", right) for right in outside]
    return Verdicts(
        right=[right for _, right in rows],
        positive=[True] * len(rows),
        part=[part for part, _ in rows],
        group=[group_of(place) for place in range(len(rows))],
    )


def test_parts_whose_prompts_occur_once_are_compared_by_fisher_s_exact_test():
    found, *_ = departures(parts_of([False] * 6 + [True] * 4, [True] * 20, lambda place: place))
    # Both parts are tested, by the same p-value.
    exact = fisher_exact([[4, 6], [20, 0]]).pvalue
    assert (found.part, found.n, found.inside, found.outside) == ("part", 10, 0.4, 1.0)
    assert found.p_adjusted == pytest.approx(2 * exact)


def test_answers_of_many_models_to_two_prompts_make_no_part_uneven():
    # 2 prompts with 10 answers each, all wrong, among 30 that are read right.
    right = [[False] * 20, [True] * 300]
    assert departures(parts_of(*right, lambda place: place))
    assert departures(parts_of(*right, lambda place: place // 10)) == []


def test_models_that_answer_the_same_prompts_are_compared_prompt_by_prompt():
    # The part's model fails on 12 of 30 prompts, the other on none of the same.
    found, *_ = departures(parts_of([False] * 12 + [True] * 18, [True] * 30, lambda place: place % 30))
    # t = sqrt(29 * 12 / 18) with 29 degrees of freedom: of 30 scores 12 are alike and the others are 0.
    assert found.p_adjusted == pytest.approx(2 * 2 * t.sf((29 * 12 / 18) ** 0.5, 29))


def test_a_model_that_fails_on_every_prompt_is_found_though_no_variance_is_seen():
    found, *_ = departures(parts_of([False] * 10, [True] * 10, lambda place: place % 10))
    assert found.p_adjusted == pytest.approx(2 * 2 * 0.5**10)
