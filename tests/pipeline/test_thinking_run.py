"""Runs of a model that thinks: its answers alone are judged, its thoughts have a budget, and the run says so."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
from scripted import TEMPLATE, saved, scripted

from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.engines.transformers import TransformersEngine
from harness.models.chat import ChatTemplate

SCRIPT = "<think> red blue green</think> bread milk book"
SWITCH = TEMPLATE + "{% if enable_thinking is false %}<think></think>{% endif %}"


@pytest.fixture(scope="module")
def model(demo, tmp_path_factory):
    # Every prompt of the demo's tasks ends with one of these.
    return saved(
        scripted(demo, dict.fromkeys(".?", SCRIPT)), tmp_path_factory.mktemp("model") / "thinker"
    ).ref.path


def command(model, *more, step="run"):
    arguments = [
        "--model",
        str(model),
        "--tasks",
        "demo_harmful,demo_benign",
        "--limit",
        "12",
        "--top-k",
        "3",
        *more,
    ]
    return [step, *arguments, "--baselines", "none", "--max-new-tokens", "2", "--judge", "keyword"]


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    more = ["--intervention", "system_prompt", "--reasoning-tokens", "12", "--output", str(folder)]
    assert main(command(model, *more)) == 0
    return folder


def test_answers_are_judged_without_their_reasoning(finished):
    rows = read_jsonl(finished / "variants/base/responses/demo_harmful.jsonl")
    assert {(row["response"], row["reasoning"], row["reasoning_tokens"]) for row in rows} == {
        ("bread milk", "red blue green", 5)
    }
    assert {row["generated_tokens"] for row in rows} == {7}
    verdicts = read_jsonl(finished / "variants/base/verdicts/demo_harmful.keyword.jsonl")
    assert all(row["reason"] is None or "reasoning" not in row["reason"] for row in verdicts)


def test_a_run_records_what_was_asked_of_the_model(finished):
    thinking = {"state": "always", "arguments": {}, "reasoning_tokens": 12}
    assert read_json(finished / "run.json")["thinking"] == thinking
    assert read_json(finished / "summary.json")["decoding"]["thinking"] == thinking


def test_the_report_folds_the_reasoning_in_beside_the_answer(finished):
    page = (finished / "report.html").read_text()
    start = page.index('id="data"')
    data = json.loads(page[page.index(">", start) + 1 : page.index("</script>", start)])
    answer = data["tasks"][0]["samples"][0][3][0]
    assert data["texts"][answer[1]] == "bread milk"
    assert data["texts"][answer[5]] == "red blue green"


def test_a_run_whose_answers_never_begin_stops_before_anything_is_trained(model, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(command(model, "--reasoning-tokens", "4", "--output", str(folder))) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "none of the first 12 answers of the base model began within 4 tokens" in line
    assert "truncated within its reasoning" in line
    assert line.endswith("raise --reasoning-tokens")
    assert not list(folder.rglob("delta*"))


def test_without_a_selection_base_answers_before_anything_is_trained(model, tmp_path, capsys):
    folder = tmp_path / "run"
    more = ["--intervention", "all_experts", "--objectives", "refuse=1", "--output", str(folder)]
    assert main(command(model, *more, "--reasoning-tokens", "4")) == 1
    assert "none of the first 12 answers of the base model began" in capsys.readouterr().err
    assert not list(folder.rglob("delta*"))


def test_a_dry_run_warns_of_what_thinking_costs(model, tmp_path, capsys):
    arguments = command(
        model, "--intervention", "system_prompt", "--output", str(tmp_path / "run"), "--dry-run"
    )
    assert main([*arguments, "--reasoning-tokens", "18"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "thinking: cannot be switched off: up to 18 tokens of reasoning before each answer" in said
    assert "warning: up to 10 times the tokens of the answers alone" in said
    assert main([*arguments, "--reasoning-tokens", "18", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)
    # Two variants, 12 prompts of two tasks each.
    assert estimate["generated_tokens_at_most"] == 2 * 2 * 12 * 20


def test_a_template_that_can_is_asked_not_to_think_and_the_run_says_so(model, tmp_path, capsys):
    folder = shutil.copytree(model, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(SWITCH)
    arguments = command(
        folder, "--intervention", "system_prompt", "--output", str(tmp_path / "run"), "--dry-run"
    )
    assert main(arguments) == 0
    assert "thinking: switched off (enable_thinking = false)\n" in capsys.readouterr().out
    assert main([*arguments, "--thinking", "on", "--reasoning-tokens", "99"]) == 0
    assert "thinking: switched on (enable_thinking = true): up to 99" in capsys.readouterr().out.replace(
        "\n", " "
    )
    assert main(["models", "inspect", str(folder)]) == 0
    assert "can be switched off (enable_thinking = false)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--reasoning-tokens", "0"], "generation.reasoning_tokens = 0: thinking cannot be switched off"),
        (["--thinking", "on", "--reasoning-tokens", "0"], "generation.reasoning_tokens = 0"),
        (["--thinking", "off"], "thinking = off: the chat template has no switch for it"),
        (["--reasoning-tokens", "600"], "lower --max-new-tokens or --reasoning-tokens or name other tasks"),
    ],
)
def test_what_a_model_cannot_do_is_one_line(model, tmp_path, capsys, more, expected):
    assert main(command(model, *more, "--output", str(tmp_path / "run"))) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("phase", ["reasoning", "answer", "decision"])
def test_experts_are_selected_by_the_tokens_of_a_phase(model, tmp_path, phase):
    folder = tmp_path / "run"
    more = ["--reasoning-tokens", "12", "--output", str(folder), "--set", f"selection.phase={phase}"]
    assert main(command(model, *more, step="select")) == 0
    table = pd.read_parquet(folder / "experts.parquet")
    assert sorted(table["phase"].unique()) == [
        "all",
        "answer",
        "decision",
        "generation",
        "prompt",
        "reasoning",
    ]
    used = table.groupby(["phase", "layer"])["a_unsafe"].sum()
    # Two experts per token, 12 prompts: five tokens of reasoning, and one of two answer tokens is routed.
    assert used["reasoning", 0] == 2 * 12 * 5
    assert used["answer", 0] == 2 * 12 * 1
    assert used["generation", 0] == used["reasoning", 0] + used["answer", 0]
    assert read_json(folder / "variants/unsafe_experts/selection.json")["phase"] == phase


def test_without_thinking_an_answer_is_all_of_a_generation(tmp_path):
    chosen = {}
    for phase in ("answer", "generation"):
        more = ["--output", str(tmp_path / phase), "--phase", phase]
        assert main(command("demo", *more, step="select")) == 0
        chosen[phase] = read_json(tmp_path / phase / "variants/unsafe_experts/selection.json")
    assert chosen["answer"] == chosen["generation"]
    assert main(["export", str(tmp_path / "answer"), str(tmp_path / "out"), "--phase", "answer"]) == 0


def test_lm_eval_reads_the_answer_and_gives_reasoning_a_budget_of_its_own(demo):
    from lm_eval.api.instance import Instance

    loaded = scripted(demo, {".": SCRIPT})
    engine = TransformersEngine(loaded, 2, ChatTemplate.of_run(loaded.tokenizer, {}, "auto", 12))
    lm = engine.lm_eval_model(2, "test")
    asked = [Instance("generate_until", {}, ("Go.", {"until": ["green", "milk"], "max_gen_toks": 2}), 0)]
    lm.as_chat = True
    assert [text.strip() for text in lm.generate_until(asked)] == ["bread"]
    lm.as_chat = False
    assert [text.strip() for text in lm.generate_until(asked)] == ["<think> red"]
