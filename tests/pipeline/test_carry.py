"""Putting trained experts back: every state once, answers kept, and the ends equal to the run's own answers."""

from __future__ import annotations

import json
import shutil

import pytest

from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.engines.transformers import TransformersEngine
from harness.runs.integrity import verify_run
from harness.runs.run import read_run

COMMAND = ["--orders", "2", "--prompts", "4", "--steps", "3"]


@pytest.fixture
def generated(monkeypatch):
    """Count the prompts that are answered."""
    counted, original = [], TransformersEngine.answer

    def answer(self, batch, *rest):
        counted.extend(prompt.id for prompt in batch)
        return original(self, batch, *rest)

    monkeypatch.setattr(TransformersEngine, "answer", answer)
    return counted


def test_states_are_answered_once_and_kept_and_the_ends_are_the_variant_and_base(
    small_run, tmp_path, capsys, generated
):
    run = shutil.copytree(small_run, tmp_path / "run")
    assert main(["experts", "carry", str(run), *COMMAND, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert not generated
    assert main(["experts", "carry", str(run), *COMMAND, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(generated) == planned["answers"] == planned["states"] * 8
    ranked = read_run(run).selection("unsafe_experts").experts
    assert tuple(map(tuple, found["orders"][0])) == ranked
    assert len(found["orders"]) == 3
    files = run / "variants" / "unsafe_experts"
    rows = read_jsonl(files / "carry.jsonl")
    assert len(rows) == planned["answers"]
    own = {
        name: {
            f"{path.stem}/{row['id']}": row["response"]
            for path in (run / "variants" / name / "responses").glob("*.jsonl")
            for row in read_jsonl(path)
        }
        for name in ("base", "unsafe_experts")
    }
    for n, name in ((0, "base"), (len(ranked), "unsafe_experts")):
        answers = {row["id"]: row["response"] for row in rows if len(row["trained"]) == n}
        assert set(answers) == set(found["prompts"])
        assert answers == {id: own[name][id] for id in answers}
    for step in found["by_rank"]:
        left = sorted(ranked[step["put_back"] :])
        asked = [row for row in rows if sorted(map(tuple, row["trained"])) == left]
        refused = [row["label"] == "refusal" for row in asked if "harmful" in row["id"] and row["label"]]
        assert step["harmful"]["scored"] == len(refused)
        assert step["harmful"]["value"] == pytest.approx(sum(refused) / len(refused))
    verify_run(run)
    for page in ("report.md", "report.html"):
        assert "put back to base" in (run / page).read_text()
    # Done again, nothing is asked; with more orders, only states that are new.
    generated.clear()
    assert main(["experts", "carry", str(run), *COMMAND]) == 0
    assert not generated
    assert main(["experts", "carry", str(run), "--orders", "3", *COMMAND[2:]]) == 0
    assert len(generated) < planned["answers"] / 2
    known = {(json.dumps(row["trained"]), row["id"]): row for row in read_jsonl(files / "carry.jsonl")}
    assert all(known[json.dumps(row["trained"]), row["id"]] == row for row in rows)


def test_a_killed_command_goes_on_where_it_was(small_run, tmp_path, generated, monkeypatch):
    run, original = shutil.copytree(small_run, tmp_path / "run"), TransformersEngine.generate
    calls = []

    def killed(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(TransformersEngine, "generate", killed)
    assert main(["experts", "carry", str(run), *COMMAND]) == 1
    before = len(generated)
    assert before
    monkeypatch.setattr(TransformersEngine, "generate", original)
    assert main(["experts", "carry", str(run), *COMMAND]) == 0
    assert len(generated) == len(read_jsonl(run / "variants/unsafe_experts/carry.jsonl"))
    assert not list(run.rglob("*.partial"))


def test_changed_verdicts_are_refused_since_the_run_is_measured_again(small_run, tmp_path, capsys, generated):
    run = shutil.copytree(small_run, tmp_path / "run")
    path = run / "variants/base/verdicts/demo_harmful.builtin.jsonl"
    path.write_text(path.read_text().replace("compliance", "refusal"))
    assert main(["experts", "carry", str(run), *COMMAND]) == 2
    assert "variants/base/verdicts/demo_harmful.builtin.jsonl was c" in capsys.readouterr().err
    assert not generated


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "unsafe_expert"], "no variant 'unsafe_expert', did you mean 'unsafe_experts'?"),
        (
            ["--variant", "steer"],
            "variant 'steer' trained no experts that could be put back; those that did:",
        ),
    ],
)
def test_what_cannot_be_put_back_is_refused_in_one_line(small_run, capsys, arguments, message):
    assert main(["experts", "carry", str(small_run), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_training_anew_forgets_what_was_said_of_the_experts_before(small_run, tmp_path):
    run = shutil.copytree(small_run, tmp_path / "run")
    assert read_json(run / "run.json")["stages"]
    assert main(["experts", "carry", str(run), *COMMAND, "--prompts", "2", "--orders", "1"]) == 0
    assert main(["train", str(run), "--set", "training.learning_rate=1e-2"]) == 0
    assert not (run / "variants/unsafe_experts/carry.json").exists()
