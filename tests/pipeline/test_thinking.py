"""A thinking model that is trained to refuse: its training labels close the thought, and so does what comes out."""

from __future__ import annotations

import pytest
import torch

from harness.base.files import read_json, read_jsonl
from harness.checkpoints.delta import load_delta
from harness.checkpoints.merge import write_merged
from harness.cli.main import main
from harness.data.reasoning import split
from harness.judges.keyword import KeywordJudge
from harness.models.chat import ChatTemplate
from harness.models.load import load_model, resolve_model

TRAIN = (
    *(
        "train",
        "--tasks",
        "demo_harmful,demo_benign",
        "--limit",
        "24",
        "--baselines",
        "none",
        "--top-k",
        "24",
    ),
    *("--learning-rate", "3e-3", "--epochs", "20", "--reasoning-tokens", "64"),
)


@pytest.fixture(scope="module")
def model(thinking_demo):
    return thinking_demo(opened_by_template=True)


def raw_answers(folder, prompts):
    """What a checkpoint writes behind the generation prompt, control tokens kept."""
    loaded = load_model(resolve_model(str(folder)), dtype="float32", device="cpu")
    answers = []
    for ids in ChatTemplate(loaded.tokenizer).tokens(prompts):
        asked = torch.tensor([ids])
        given = loaded.moe.model.generate(
            asked, attention_mask=torch.ones_like(asked), max_new_tokens=48, do_sample=False
        )
        answers.append(loaded.tokenizer.decode(given[0, len(ids) :]))
    return answers


@pytest.mark.slow
# With a thought before each refusal so small a model learns too little to be held to a share of refusals.
@pytest.mark.parametrize("thinks", [False])
def test_a_trained_model_closes_its_thoughts_before_it_refuses(model, tmp_path, thinks):
    run, merged = tmp_path / "run", tmp_path / "merged"
    more = ("--set", f"training.refusal_thought={str(thinks).lower()}")
    assert main([*TRAIN, "--model", str(model), "--output", str(run), *more]) == 0
    rows = [row for row in read_jsonl(run / "training/examples.jsonl") if row["aim"] == "refuse"]
    assert all(("thought" in row) == thinks for row in rows)
    assert not thinks or len({row["thought"] for row in rows}) > 5
    delta = load_delta(run / "variants/unsafe_experts/delta.safetensors")
    write_merged(resolve_model(str(model)), delta, merged)
    prompts = [row["prompt"] for row in rows]
    base, trained = raw_answers(model, prompts), raw_answers(merged, prompts)
    assert sum(split(answer, "<think>").reasoning != "" for answer in base) > 0.8 * len(rows)
    found = [split(answer, "<think>") for answer in trained]
    refused = [
        parts
        for parts in found
        if parts.answer and KeywordJudge().judge("", "", parts.answer).label == "refusal"
    ]
    # Seventeen thoughts are more than so small a model learns well.
    assert len(refused) > (0.4 if thinks else 0.7) * len(rows)
    assert sum((parts.reasoning != "") == thinks for parts in refused) > 0.8 * len(refused)
    assert read_json(run / "variants/unsafe_experts/delta.json")["examples"]["refuse"] == len(rows)
