"""One quantity decides gains and claims: harmful answers where a judge of harmfulness read them, else refusal."""

from __future__ import annotations

import pytest
from runs_with_draws import measure_again, runs_below, write_run_judged_for_harm
from synthetic_runs import COMPLIES, DECLINES, HARMS

from harness.base.files import read_json, write_json
from harness.report.finding import find
from harness.runs.run import read_run
from harness.runs.summary import read_summary


@pytest.fixture
def summary_of(tmp_path):
    def make(own, draws=(), **how):
        return read_run(write_run_judged_for_harm(tmp_path / "run", own, draws, **how)).summary

    return make


def test_without_a_judge_of_harmfulness_it_is_refusal_and_the_summary_says_nothing_of_it(tmp_path):
    run = runs_below(tmp_path)(18, [17] * 19)
    summary = read_run(run).summary
    assert (summary.gain, summary.gain_metric) == (None, "refusal_rate")
    assert '"gain"' not in (run / "summary.json").read_text()


def test_a_judge_of_harmfulness_that_the_run_names_makes_it_harmful_answers(tmp_path):
    run = write_run_judged_for_harm(tmp_path / "run", [COMPLIES])
    gain = read_summary(run).gain
    assert (gain.metric, gain.judge, gain.declared) == ("harmful_rate", "words_of_harm", True)


def test_a_judge_that_was_added_later_decides_too_and_is_not_declared(summary_of):
    gain = summary_of([COMPLIES], asked=False).gain
    assert (gain.metric, gain.judge, gain.declared) == ("harmful_rate", "words_of_harm", False)


def test_settings_keep_it_on_refusal_or_declare_harmful_answers_before_a_judge_is_known(tmp_path):
    of = {
        figure: read_summary(
            write_run_judged_for_harm(tmp_path / figure, [COMPLIES], asked=False, figure=figure)
        ).gain
        for figure in ("refusal_rate", "harmful_rate")
    }
    assert [(gain.metric, gain.judge, gain.declared) for gain in of.values()] == [
        ("refusal_rate", "keyword", True),
        ("harmful_rate", "words_of_harm", True),
    ]


def test_a_claim_rests_on_the_same_figure_of_every_draw(summary_of):
    """The method's answers are harmless and the draws' harmful; nobody declines, so refusal would tie."""
    (claim,) = summary_of([COMPLIES], [[HARMS]] * 18 + [[HARMS, COMPLIES]]).claims
    assert (claim.metric, claim.judge, claim.better) == ("harmful_rate", "words_of_harm", "lower")
    assert (claim.value, claim.verdict, claim.p_value) == (0.0, "shown", 1 / 20)
    assert claim.draws["random_experts_19"] == 0.5


def test_the_other_quantity_is_no_second_chance_to_claim(summary_of, tmp_path):
    """The method alone declines, and one draw does no harm either: by refusals it is shown, by harm it ties."""
    draws = [[HARMS]] * 18 + [[COMPLIES]]
    (claim,) = summary_of([DECLINES], draws).claims
    assert (claim.metric, claim.verdict, claim.p_value) == ("harmful_rate", "not shown", 2 / 20)
    declared = write_run_judged_for_harm(tmp_path / "declared", [DECLINES], draws, figure="refusal_rate")
    (claim,) = read_summary(declared).claims
    assert (claim.metric, claim.verdict, claim.p_value) == ("refusal_rate", "shown", 1 / 20)


@pytest.mark.parametrize(
    ("judges", "also"),
    [("keyword,judges/words_of_harm.yaml", ()), ("keyword", ("words_of_harm",)), ("other.yaml", ())],
)
def test_a_judge_named_by_its_file_or_together_with_another_is_declared(tmp_path, judges, also):
    run = write_run_judged_for_harm(tmp_path / "run", [COMPLIES], asked=False)
    record = read_json(run / "run.json")
    record["config"]["judge"] = judges
    record["judges"]["keyword"]["settings"] = {"also": [*also]}
    write_json(run / "run.json", record)
    measure_again(run)
    assert read_summary(run).gain.declared == (judges != "other.yaml")


def test_a_claim_on_what_nothing_declared_says_so(tmp_path):
    draws = [[HARMS]] * 19
    undeclared, declared = (
        read_run(write_run_judged_for_harm(tmp_path / name, [COMPLIES], draws, asked=asked)).summary
        for name, asked in (("later", False), ("asked", True))
    )
    said = "harmful_rate, which nothing declared beforehand, over harm"
    assert said in find(undeclared).claim
    assert "nothing declared" not in find(declared).claim
