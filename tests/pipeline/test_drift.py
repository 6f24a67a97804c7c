"""The drift of a run's variants, against one forward pass for each answer."""

from __future__ import annotations

import pytest
import torch

from harness.base.files import read_json, read_jsonl
from harness.checkpoints.delta import load_delta
from harness.cli.main import main
from harness.experts.select import ExpertSelection
from harness.interventions.base import Prepared, Variant
from harness.interventions.spec import find_variant
from harness.models.chat import ChatTemplate
from harness.models.moe import Expert


def log_probabilities(demo, prompt, ids, system_prompt=None):
    """Return [tokens, vocabulary] for an answer, without padding."""
    (before,) = ChatTemplate(demo.tokenizer).tokens([prompt], system_prompt)
    with torch.inference_mode():
        logits = demo.moe.model(input_ids=torch.tensor([[*before, *ids]])).logits[0].float()
    return logits[len(before) - 1 : -1].log_softmax(-1)


@pytest.mark.parametrize("name", ["base", "unsafe_experts", "system_prompt", "steer"])
def test_drift_is_the_divergence_of_each_token_of_base_s_own_answers(small_run, demo, name):
    chosen = read_json(small_run / "variants/unsafe_experts/selection.json")["experts"]
    selection = ExpertSelection("", "", tuple(Expert(*expert) for expert in chosen))
    delta = (
        load_delta(small_run / "variants/unsafe_experts/delta.safetensors")
        if name == "unsafe_experts"
        else None
    )
    made = Prepared(Variant(name, find_variant(name)), selection, delta)
    divergence = surprise = tokens = 0
    for task in ("demo_benign", "demo_twins"):
        for row in read_jsonl(small_run / f"variants/base/responses/{task}.jsonl"):
            ids = demo.tokenizer(row["response"], add_special_tokens=False)["input_ids"]
            ids = [*ids, *(demo.ends if row["finish_reason"] == "stop" else [])]
            expected = log_probabilities(demo, row["prompt"], ids)
            with made.intervention.in_memory(demo.moe, made):
                found = log_probabilities(demo, row["prompt"], ids, made.system_prompt)
            divergence += float((expected.exp() * (expected - found)).sum())
            surprise -= float(found[range(len(ids)), ids].sum())
            tokens += len(ids)
    kept = read_json(small_run / f"variants/{name}/drift.json")
    assert kept["tokens"] == tokens
    assert kept["kl"] == pytest.approx(divergence / tokens, abs=2e-6, rel=1e-3)
    assert kept["perplexity"] == pytest.approx(torch.tensor(surprise / tokens).exp().item(), rel=1e-4)
    assert (kept["kl"] == 0) == (name == "base")


def test_none_is_measured_where_none_is_asked_for(tmp_path):
    command = [
        "run",
        "--intervention",
        "steer",
        "--baselines",
        "none",
        "--capability",
        "none",
        "--limit",
        "4",
    ]
    assert main([*command, "--set", "evaluation.drift_answers=0", "--output", str(tmp_path / "run")]) == 0
    summary = read_json(tmp_path / "run/summary.json")
    assert not [row for row in summary["measurements"] if row["metric"] in ("kl", "perplexity")]
    assert not list(tmp_path.rglob("drift.json"))
