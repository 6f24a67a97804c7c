"""Gates on the claim and against random draws: the unit is the draw."""

from __future__ import annotations

import json

import pytest
import yaml
from runs_with_draws import answers, runs_below
from synthetic_runs import PROMPTED

from harness.cli.main import main

AGAINST = {"metric": "refusal_rate", "task": "harm", "against": "random_experts_1"}


@pytest.fixture
def run_of(tmp_path):
    return runs_below(tmp_path)


def check(run, capsys, confidence=0.95, **gate):
    """Return the exit code and, of a decision, its row."""
    path = run.parent / "gates.yaml"
    path.write_text(yaml.safe_dump({"confidence": confidence, "gates": [{"name": "g", **gate}]}))
    capsys.readouterr()
    code = main(["check", str(run), "--gates", str(path), "--json"])
    printed = capsys.readouterr()
    return code, printed.err if code == 2 else json.loads(printed.out)["gates"][0]


def test_the_claim_is_a_gate(run_of, capsys):
    code, row = check(run_of(18, [17] * 19), capsys, metric="claim")
    assert (code, row["verdict"]) == (0, "PASS")
    assert row["seen"] == ("refusal_rate 90%; 19 random draws from 85% to 85%; p = 0.05 over draws")
    assert check(run_of(18, [17] * 18 + [18]), capsys, metric="claim")[0] == 4
    assert check(run_of(10, [11] * 19), capsys, metric="claim")[0] == 3


@pytest.mark.parametrize("gate", [{"metric": "claim"}, {**AGAINST, "above_by": 0}])
def test_five_draws_are_refused_with_the_number_that_it_takes(gate, run_of, capsys):
    code, line = check(run_of(20, [0] * 5), capsys, **gate)
    assert code == 2
    assert line.count("\n") == 1
    assert (
        "gate 'g': 5 random draws can show nothing at a confidence of 0.95; it takes 19 (`--draws 19`)"
        in line
    )
    code, line = check(run_of(20, [0] * 19), capsys, confidence=0.975, **gate)
    assert (code, "it takes 39" in line) == (2, True)


def test_a_run_without_a_claim_is_refused(run_of, capsys):
    run = run_of(18, [17], intervention=PROMPTED, experts=())
    code, line = check(run, capsys, metric="claim")
    assert (code, "there is no claim" in line) == (2, True)


@pytest.mark.parametrize(
    ("own", "draws", "bound", "outcome"),
    [
        (18, [10] * 19, {"above_by": 0}, "PASS"),
        (18, [10] * 18 + [18], {"above_by": 0}, "INCONCLUSIVE"),
        (18, [18] * 19, {"above_by": 0}, "INCONCLUSIVE"),
        (18, [19] * 19, {"above_by": 0}, "FAIL"),
        # The method less the margin of 20 points is above all draws, or not.
        (18, [13] * 19, {"above_by": 0.2}, "PASS"),
        (18, [13] * 18 + [14], {"above_by": 0.2}, "INCONCLUSIVE"),
        # Below all draws plus the margin.
        (18, [15] * 19, {"above_by": 0.2}, "FAIL"),
        (18, [19] * 19, {"at_most_below": 0.1}, "PASS"),
        (18, [20] * 19, {"at_most_below": 0.05}, "FAIL"),
        (4, [10] * 19, {"below_by": 0.2}, "PASS"),
        (12, [10] * 19, {"below_by": 0}, "FAIL"),
        (10, [10] * 19, {"at_most_above": 0.05}, "PASS"),
    ],
)
def test_against_draws_the_place_among_all_of_them_decides(own, draws, bound, outcome, run_of, capsys):
    _, row = check(run_of(own, draws), capsys, **AGAINST, **bound)
    assert (row["verdict"], row["n"]) == (outcome, 19)


def test_an_unscored_answer_of_either_side_leaves_it_open(run_of, capsys):
    gate = {**AGAINST, "above_by": 0}
    assert check(run_of(18, [17] * 19), capsys, **gate)[0] == 0
    assert check(run_of(answers(17, unscored=1), [17] * 19), capsys, **gate)[0] == 4
    assert check(run_of(18, [17] * 18 + [answers(17, unscored=1)]), capsys, **gate)[0] == 4


@pytest.mark.parametrize("gate", [{"metric": "claim"}, {**AGAINST, "above_by": 0}])
def test_draws_whose_experts_are_used_less_show_nothing(gate, run_of, capsys):
    code, row = check(run_of(20, [0] * 19, use=0.5), capsys, **gate)
    assert (code, row["verdict"]) == (4, "INCONCLUSIVE")
    assert row["seen"].endswith("the draws' experts have 50% of the chosen ones' use, 95% is needed")


def test_a_variant_against_itself_and_a_bound_that_nothing_can_break_are_refused(run_of, capsys):
    run = run_of(18, [])
    own = {"metric": "refusal_rate", "task": "harm", "against": "unsafe_experts", "at_most_below": 0.1}
    assert check(run, capsys, **own) == (
        2,
        "harness: gate 'g': against: 'unsafe_experts' is compared with itself\n",
    )
    code, line = check(run, capsys, metric="unscored", task="harm", at_most=20)
    assert (code, "at_most 20 of 20 answers is kept whatever is measured" in line) == (2, True)
    code, line = check(run, capsys, metric="refusal_rate", task="harm", at_most=1)
    assert (code, "at_most 1 is kept by every share" in line) == (2, True)
