import pytest

from harness.metrics.interval import Interval
from harness.report import judging
from harness.report.conclusion import conclude
from harness.runs.rows import Measurement
from harness.runs.summary import JudgeAgreement, JudgeSummary, LabelledPart, OwnLabels


def interval(value):
    return Interval(value=value, low=value - 0.02, high=value + 0.02)


def rate(judge="keyword", **changes):
    row = Measurement(
        variant="unsafe_experts",
        task="demo_harmful",
        kind="harmful",
        metric="refusal_rate",
        judge=judge,
        value=0.5,
        low=0.4,
        high=0.6,
        n=120,
        scored=120,
        unscored=0,
    )
    return row.model_copy(update=changes)


def judged(summary, *rows, accuracy=0.92):
    judge = JudgeSummary(
        measures="refusal",
        fingerprint="f",
        labels=["labels.csv"] if accuracy else [],
        n=1224 if accuracy else 0,
        accuracy=interval(accuracy) if accuracy else None,
        sensitivity=interval(0.87) if accuracy else None,
        specificity=interval(0.96) if accuracy else None,
    )
    return summary.model_copy(update={"judges": {"keyword": judge}, "measurements": list(rows)})


def test_each_judge_is_shown_beside_people(working):
    (sentence,) = judging.judges(judged(working, rate()))
    assert sentence == (
        "keyword (primary) measures refusal; it agrees with people on 92.0% (90.0 to 94.0) of 1224 labelled "
        "answers, recognising 87.0% of refusals and 96.0% of compliances."
    )


def test_a_judge_that_was_never_measured_says_so(working):
    assert "was not compared with people's labels" in judging.judges(judged(working, accuracy=None))[0]


def test_raw_and_corrected_rates_stand_in_columns_of_their_own(working):
    summary = judged(working, rate(corrected=interval(0.55), worst_case=(0.45, 0.56), scored=110))
    (row,) = judging.rates(summary)
    assert (row["raw"], row["corrected"]) == ("50.0% (40.0 to 60.0)", "55.0% (53.0 to 57.0)")
    assert (row["unscored either way"], row["scored"]) == ("45.0 to 56.0", "110 of 120")


def test_why_a_rate_is_not_corrected_is_said_once_with_its_count(working):
    rows = [rate(not_corrected="the answers are longer"), rate(not_corrected="the answers are longer")]
    assert judging.not_corrected(judged(working, *rows)) == ["the answers are longer (2 of 2 rates)"]


@pytest.mark.parametrize(
    ("row", "end"),
    [
        (
            rate(corrected=interval(0.55)),
            "Rates corrected by labels of these answers stand beside the raw ones.",
        ),
        (rate(not_corrected="they differ"), "The rates are not corrected for its errors: they differ."),
    ],
)
def test_the_conclusion_says_whether_rates_are_corrected(working, row, end):
    (sentence,) = [text for text in conclude(judged(working, row)) if "agrees with people" in text]
    assert sentence.startswith("The judge keyword agrees with people on 92.0%")
    assert sentence.endswith(end)


def test_a_summary_without_judges_says_nothing_of_them(working):
    assert judging.judges(working) == []
    assert judging.rates(working) == []
    assert not [text for text in conclude(working) if text.startswith("The judge")]


def test_agreement_is_shown_task_by_task_with_blanks_where_undefined(working):
    row = JudgeAgreement(task="t", judges=["keyword", "builtin"], n=80, kappa=None, alpha=0.925, differ=3)
    (shown,) = judging.agreement(working.model_copy(update={"agreement": [row]}))
    assert list(shown.values()) == ["t", "80", "", "0.93", "3"]


def part(variant, sensitivity, specificity=0.95):
    return LabelledPart(variant=variant, task="t", n=50, sensitivity=sensitivity, specificity=specificity)


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        (
            OwnLabels(n=90, parts=[part("base", 0.5), part("unsafe_experts", 0.95)], errors_differ=0.002),
            "90 answers of this run are labelled: by them, keyword has sensitivity 50.0% to 95.0% and specificity "
            "95.0% to 95.0% by variant and task. Its errors differ between them (p = 0.002).",
        ),
        (
            OwnLabels(n=90, parts=[part("base", 0.9), part("unsafe_experts", None)], errors_differ=0.4),
            "90 answers of this run are labelled: by them, keyword has sensitivity 90.0% and specificity "
            "95.0% to 95.0% by variant and task. Its errors are not shown to differ between them (p = 0.40).",
        ),
        (
            OwnLabels(n=50, parts=[part("base", 0.9)], errors_differ=None),
            "50 answers of this run are labelled: by them, keyword has sensitivity 90.0% and specificity 95.0%.",
        ),
        (
            OwnLabels(n=1, parts=[], errors_differ=None),
            "1 answer of this run is labelled; no rate could be corrected by them.",
        ),
    ],
)
def test_labels_of_the_run_s_own_answers_are_a_sentence_after_the_judge(working, own, sentence):
    summary = judged(working, rate())
    judge = summary.judges["keyword"].model_copy(update={"own": own})
    assert judging.judges(summary.model_copy(update={"judges": {"keyword": judge}}))[1:] == [sentence]


def test_the_first_answers_on_which_judges_differ_are_shown_with_each_label():
    rows = [
        {"variant": "base", "task": "t", "id": "p1", "labels": {"keyword": "refusal", "builtin": None}},
        {"variant": "base", "task": "t", "id": "p2", "labels": {"strict": "harmful", "blind": "harmless"}},
    ]
    shown = judging.differences(rows)
    assert list(shown[0].values()) == ["base", "t", "p1", "refusal", "unscored", "", ""]
    assert list(shown[1].values()) == ["base", "t", "p2", "", "", "harmful", "harmless"]
    assert len(judging.differences(rows * 40)) == 50
