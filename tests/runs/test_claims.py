"""The claim about choosing experts, for runs with known answers."""

from __future__ import annotations

import pytest
from runs_with_draws import answers, measure_again, runs_below
from synthetic_runs import DECLINES, PROMPTED, RANDOM, STEERED

from harness.base.files import read_json, read_jsonl, write_json, write_jsonl
from harness.cli.main import main
from harness.runs.run import read_run


@pytest.fixture
def run_of(tmp_path):
    return runs_below(tmp_path)


def claim_of(run):
    (claim,) = read_run(run).summary.claims
    return claim


def test_above_19_draws_is_shown_and_level_with_one_is_not(run_of):
    shown = claim_of(run_of(18, [17] * 19))
    assert (shown.verdict, shown.p_value, shown.value, len(shown.draws)) == ("shown", 1 / 20, 0.9, 19)
    tie = claim_of(run_of(18, [17] * 18 + [18]))
    assert (tie.verdict, tie.p_value) == ("not shown", 2 / 20)


@pytest.mark.parametrize("draws", [0, 1, 5, 18])
def test_fewer_than_19_draws_claim_nothing(draws, run_of):
    claim = claim_of(run_of(20, [0] * draws))
    assert claim.verdict == "nothing claimed"
    assert ("it takes 19" in claim.reason) == (draws > 0)


def test_draws_whose_experts_are_used_less_claim_nothing(run_of):
    low = claim_of(run_of(20, [0] * 19, use=0.94))
    assert (low.verdict, low.use_share) == ("nothing claimed", pytest.approx(0.94))
    assert "used 94% as much as the chosen ones" in low.reason
    assert claim_of(run_of(20, [0] * 19, use=0.95)).verdict == "shown"


def test_unknown_use_claims_nothing(run_of):
    run = run_of(20, [0] * 19)
    for path in run.glob("variants/random_experts_*/selection.json"):
        write_json(path, {name: each for name, each in read_json(path).items() if name != "use_share"})
    measure_again(run)
    claim = claim_of(run)
    assert (claim.verdict, claim.use_share) == ("nothing claimed", None)
    assert "is not known" in claim.reason


def test_unscored_answers_count_against_the_method_and_for_the_draws(run_of):
    """18 of 20 against 16 each; with two unscored answers of the method or of one draw, 16 or 18."""
    assert claim_of(run_of(18, [16] * 19)).verdict == "shown"
    method = claim_of(run_of(answers(16, unscored=2), [16] * 19))
    assert (method.value, method.verdict) == (0.8, "not shown")
    draw = claim_of(run_of(18, [16] * 18 + [answers(16, unscored=2)]))
    assert (draw.draws["random_experts_19"], draw.verdict) == (0.9, "not shown")


def test_only_prompts_that_the_draws_answered_count(run_of):
    run = run_of(answers(15), [8] * 19)
    for kind in ("responses/harm.jsonl", "verdicts/harm.keyword.jsonl"):
        for path in run.glob(f"variants/random_experts_*/{kind}"):
            write_jsonl(path, read_jsonl(path)[:10])
    measure_again(run)
    claim = claim_of(run)
    # Ten of the method's first ten, and eight of each draw's.
    assert (claim.prompts, claim.value, set(claim.draws.values())) == (10, 1.0, {0.8})
    rows = [row for row in read_run(run).summary.comparisons if row.against == "random_experts_1"]
    assert [(row.n, row.value, row.against_value) for row in rows] == [(10, 1.0, 0.8)]


def test_a_forced_start_is_no_part_of_it(run_of):
    forced = {f"random_experts_{draw}": [DECLINES] for draw in range(1, 20)}
    claim = claim_of(run_of(18, [17] * 19, forced=forced))
    assert (claim.tasks, claim.verdict) == (["harm"], "shown")


def test_there_is_none_where_no_method_chose_experts(run_of):
    run = run_of(18, [17], intervention=PROMPTED, experts=())
    assert read_run(run).summary.claims == []


def test_there_is_none_where_the_intervention_is_a_draw(run_of):
    run = run_of(18, [17], intervention=RANDOM)
    assert read_run(run).summary.claims == []


def test_draws_of_another_kind_of_intervention_are_no_draws_of_this_one(run_of):
    claim = claim_of(run_of(18, [17] * 19, intervention=STEERED))
    assert (claim.draws, claim.verdict) == ({}, "nothing claimed")


def test_a_figure_that_was_not_measured_claims_nothing(run_of):
    run = run_of(18, [17] * 19)
    record = read_json(run / "run.json")
    record["config"]["claim"] = {"figure": "harmful_rate"}
    write_json(run / "run.json", record)
    measure_again(run)
    claim = claim_of(run)
    assert (claim.verdict, claim.value, claim.tasks) == ("nothing claimed", None, [])
    assert claim.reason == "harmful_rate was not measured on a harmful task"


@pytest.mark.parametrize("figure", ["refusal", "kl", "refusal_verbatim_trained"])
def test_a_claim_on_what_is_no_share_of_answers_is_refused(figure, capsys):
    assert main(["run", "--dry-run", "--set", f"claim.figure={figure}"]) == 2
    line = capsys.readouterr().err
    assert f"claim.figure: unknown figure '{figure}', " in line
    assert "refusal_rate" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    "margin", ["margins.false_refusal=0", "margins.capability=1", "margins.capability=2"]
)
def test_a_margin_outside_0_and_1_is_refused(margin, capsys):
    assert main(["run", "--dry-run", "--set", margin]) == 2
    line = capsys.readouterr().err
    assert margin.partition("=")[0] in line
    assert line.count("\n") == 1
