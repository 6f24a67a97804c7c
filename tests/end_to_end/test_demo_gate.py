"""The gate of this project's own CI notices when the intervention does nothing."""

from __future__ import annotations

import json

from harness.cli.main import main
from harness.content import content_folder

GATES = content_folder("baselines") / "reference" / "demo.yaml"


def test_the_demo_gate_fails_when_the_intervention_is_disabled(tmp_path, capsys):
    run = tmp_path / "run"
    command = ["run", "--baselines", "none", "--learning-rate", "1e-12", "--output", str(run)]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["check", str(run), "--gates", str(GATES), "--against", "demo", "--json"]) == 3
    result = json.loads(capsys.readouterr().out)
    verdicts = {row["name"]: row["verdict"] for row in result["gates"]}
    declining = {name for name in verdicts if name.startswith("declines")}
    assert {verdicts[name] for name in declining} == {"FAIL"}
    assert {verdicts[name] for name in verdicts.keys() - declining} == {"PASS"}
    reference = next(row for row in result["gates"] if row["against"] == "reference")
    assert len(reference["flipped"]) == reference["n"] == 132
