import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.judged import Confusion, confusion

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


def test_figures_of_a_known_table():
    # 20 of 25 and 15 of 25; kappa = (0.7 - 0.5) / (1 - 0.5), standard error 0.0999 (Fleiss, Cohen and Everitt 1969).
    counts = Confusion(refusal_found=20, refusal_missed=5, compliance_found=15, compliance_missed=10)
    assert counts.accuracy.value == pytest.approx(0.7)
    assert counts.sensitivity.value == pytest.approx(0.8)
    assert counts.specificity.value == pytest.approx(0.6)
    assert counts.kappa.value == pytest.approx(0.4)
    assert counts.kappa.low < 0.2 < 0.6 > counts.kappa.high - 0.2


def test_nothing_is_claimed_where_there_is_nothing_to_measure():
    only_refusals = counted(5, 0, 0, 0)
    assert only_refusals.specificity is None
    assert only_refusals.kappa is None
    assert counted(0, 0, 0, 0).accuracy is None


def test_a_judge_that_says_one_thing_has_no_kappa():
    assert counted(0, 5, 5, 0).kappa is None


@given(st.lists(st.tuples(st.one_of(st.none(), LABELS), LABELS), max_size=60))
def test_every_interval_holds_its_figure(pairs):
    counts = confusion([verdict for verdict, _ in pairs], [label for _, label in pairs])
    for figure in (counts.accuracy, counts.sensitivity, counts.specificity, counts.kappa):
        assert figure is None or figure.low <= figure.value <= figure.high
