"""The gate of this project's own CI: the demo passes it, and it notices when the intervention does nothing."""

from __future__ import annotations

import json

import pytest

from harness.base.content import content_folder
from harness.cli.main import main

GATES = content_folder("baselines") / "reference" / "demo.yaml"
RUN = ("run", "--intervention", "unsafe_experts", "--baselines", "none")


@pytest.mark.slow
def test_the_demo_gate_fails_when_the_intervention_is_disabled(tmp_path, capsys):
    run = tmp_path / "run"
    disabled = ["--learning-rate", "1e-12", "--set", "training.max_steps=1"]
    assert main([*RUN, *disabled, "--output", str(run)]) == 0
    capsys.readouterr()
    assert main(["check", str(run), "--gates", str(GATES), "--against", "demo", "--json"]) == 3
    result = json.loads(capsys.readouterr().out)
    outcomes = {row["name"]: row["verdict"] for row in result["gates"]}
    declining = {name for name in outcomes if name.startswith("declines")}
    assert {outcomes[name] for name in declining} == {"FAIL"}
    assert {outcomes[name] for name in outcomes.keys() - declining} == {"PASS"}
    reference = next(row for row in result["gates"] if row["against"] == "reference")
    assert len(reference["flipped"]) == reference["n"] == 132


@pytest.mark.slow
def test_the_demo_passes_its_gates_and_two_runs_with_one_seed_come_to_identical_verdicts(tmp_path, capsys):
    first, again = tmp_path / "first", tmp_path / "again"
    for run in (first, again):
        assert main([*RUN, "--output", str(run)]) == 0
    names = [path.relative_to(first) for path in first.glob("variants/*/verdicts/*.jsonl")]
    assert len(names) == 6
    for name in names:
        assert (again / name).read_bytes() == (first / name).read_bytes(), name
    # The pinned reference was made on another machine, whose rounding may flip an answer within the gates' bounds.
    assert main(["check", str(first), "--gates", str(GATES), "--against", "demo"]) == 0
    capsys.readouterr()
    assert main(["check", str(again), "--gates", str(GATES), "--against", str(first), "--json"]) == 0
    assert not [row for row in json.loads(capsys.readouterr().out)["gates"] if row["flipped"]]
