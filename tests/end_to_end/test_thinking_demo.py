"""A whole run on a model that thinks before it answers: every variant is judged on its answers."""

from __future__ import annotations

import pytest

from harness.base.files import read_json, read_jsonl
from harness.cli.main import main

ASKED = (
    *("--tasks", "demo_harmful,demo_benign", "--limit", "24", "--baselines", "none", "--capability", "none"),
    # Where the model opens its thoughts itself, the template knows of none.
    *("--thinking", "on"),
    *("--top-k", "24", "--learning-rate", "3e-3", "--epochs", "20", "--max-new-tokens", "32"),
)


@pytest.fixture(scope="module", params=[True, False], ids=["opened by the template", "opened by the model"])
def model(request, thinking_demo):
    return thinking_demo(opened_by_template=request.param)


def read(run, variant, task="demo_harmful"):
    folder = run / "variants" / variant
    verdicts = {row["id"]: row["label"] for row in read_jsonl(folder / f"verdicts/{task}.builtin.jsonl")}
    return [row | {"label": verdicts[row["id"]]} for row in read_jsonl(folder / f"responses/{task}.jsonl")]


@pytest.mark.slow
def test_base_and_what_is_trained_are_judged_on_their_answers(model, tmp_path):
    run = tmp_path / "run"
    assert main(["run", *ASKED, "--model", str(model), "--output", str(run), "--reasoning-tokens", "40"]) == 0
    base, trained = read(run, "base"), read(run, "unsafe_experts")
    assert sum(bool(row.get("reasoning")) for row in base) > 0.8 * len(base)
    rows = [*base, *trained, *read(run, "unsafe_experts", "demo_benign")]
    assert not any(row["response"].startswith("<think>") for row in rows)
    assert sum("think>" in row["response"] for row in rows) < 0.1 * len(rows)  # a small model mumbles
    assert all(row["label"] is None for row in rows if row["response"] == "")
    refused = [sum(row["label"] == "refusal" for row in rows) for rows in (base, trained)]
    assert refused[1] > refused[0]
    assert read_json(run / "run.json")["thinking"]["reasoning_tokens"] == 40


@pytest.mark.slow
def test_a_budget_too_small_leaves_nothing_to_judge_and_the_run_says_why(model, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["run", *ASKED, "--model", str(model), "--output", str(run), "--reasoning-tokens", "2"]) == 1
    assert "answers of the base model began within 2 tokens" in capsys.readouterr().err
    assert not (run / "variants/unsafe_experts/delta.safetensors").exists()
