"""The drift of a run's variants, against one forward pass for each answer."""

from __future__ import annotations

import json

import pytest
import torch

from harness.base.files import read_json, read_jsonl
from harness.checkpoints.delta import load_delta
from harness.cli.main import main
from harness.experts.select import ExpertSelection
from harness.interventions.base import Prepared, Variant
from harness.interventions.spec import find_variant
from harness.models.chat import ChatTemplate
from harness.models.load import load_model, resolve_model
from harness.models.moe import Expert
from harness.runs.run import read_run


def log_probabilities(demo, prompt, ids, system_prompt=None):
    """Return [tokens, vocabulary] for an answer, without padding."""
    (before,) = ChatTemplate(demo.tokenizer).tokens([prompt], system_prompt)
    with torch.inference_mode():
        logits = demo.moe.model(input_ids=torch.tensor([[*before, *ids]])).logits[0].float()
    return logits[len(before) - 1 : -1].log_softmax(-1)


def made_by(small_run, name):
    """Return a variant of the small run as it was made."""
    chosen = read_json(small_run / "variants/unsafe_experts/selection.json")["experts"]
    selection = ExpertSelection("", "", tuple(Expert(*expert) for expert in chosen))
    delta = (
        load_delta(small_run / "variants/unsafe_experts/delta.safetensors")
        if name == "unsafe_experts"
        else None
    )
    return Prepared(Variant(name, find_variant(name)), selection, delta)


@pytest.mark.parametrize("name", ["base", "unsafe_experts", "system_prompt", "steer"])
def test_drift_is_the_divergence_of_each_token_of_base_s_own_answers(small_run, demo, name):
    made = made_by(small_run, name)
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


def routers(demo, ids):
    """Return each layer's logits, [L, T, E], of tokens without padding."""
    with torch.inference_mode():
        output = demo.moe.model(input_ids=torch.tensor([ids]), output_router_logits=True, use_cache=False)
    return torch.stack(output.router_logits)


@pytest.mark.parametrize("name", ["base", "unsafe_experts", "system_prompt", "steer"])
def test_routes_are_compared_on_the_tokens_that_both_have(small_run, demo, name):
    """One forward pass per answer; top-2 of the logits, which is the demo's rule."""
    made, chat = made_by(small_run, name), ChatTemplate(demo.tokenizer)
    kept = {"prompt": 0, "answer": 0}
    divergence, tokens = dict(kept), dict(kept)
    for row in read_jsonl(small_run / "variants/base/responses/demo_harmful.jsonl"):
        ids = demo.tokenizer(row["response"], add_special_tokens=False)["input_ids"]
        ids = [*ids, *(demo.ends if row["finish_reason"] == "stop" else [])]
        (plain,), (asked,) = chat.tokens([row["prompt"]]), chat.tokens([row["prompt"]], made.system_prompt)
        before = routers(demo, [*plain, *ids])
        with made.intervention.in_memory(demo.moe, made):
            after = routers(demo, [*asked, *ids])
        # With a system prompt the first tokens are others; the message and what follows are the same.
        same = next(
            (n for n in range(min(map(len, (plain, asked)))) if plain[-1 - n] != asked[-1 - n]),
            min(map(len, (plain, asked))),
        )
        for phase, places in {
            "prompt": range(-len(ids) - same, -len(ids)),
            "answer": range(-len(ids), -1),
        }.items():
            for place in places:
                both = before[:, place].topk(2).indices, after[:, place].topk(2).indices
                kept[phase] += (both[0][:, :, None] == both[1][:, None]).sum().item() / 2
                p, q = before[:, place].double().log_softmax(-1), after[:, place].double().log_softmax(-1)
                divergence[phase] += (p.exp() * (p - q)).sum().item()
                tokens[phase] += 1
    found = read_json(small_run / f"variants/{name}/routes.json")["figures"]
    overall = {row["phase"]: row for row in found if row["kind"] == "harmful" and row["layer"] is None}
    layers = len(demo.moe.layers)
    for phase, row in overall.items():
        assert row["tokens"] == tokens[phase]
        assert row["kept"] == pytest.approx(kept[phase] / tokens[phase] / layers, abs=2e-3)
        if name == "steer":
            assert row["kl"] is None  # a masked expert has no chance at all
        else:
            assert row["kl"] == pytest.approx(divergence[phase] / tokens[phase] / layers, rel=1e-3, abs=2e-6)
        assert (row["kept"] == 1) == (name == "base")
    assert {row["layer"] for row in found} == {None, *demo.moe.layer_indices}


@pytest.mark.slow
def test_the_empty_thought_that_a_template_closes_is_no_part_of_an_answer(thinking_demo, tmp_path):
    """A model whose template opens a thought; base's answers are read behind an empty one."""
    folder = thinking_demo(opened_by_template=True)
    command = ["run", "--model", str(folder), "--tasks", "demo_harmful,demo_benign", "--limit", "8"]
    command += ["--intervention", "system_prompt", "--baselines", "none", "--capability", "none"]
    run = tmp_path / "run"
    assert main([*command, "--reasoning-tokens", "40", "--output", str(run)]) == 0
    loaded = load_model(resolve_model(str(folder)), dtype="float32", device="cpu")
    chat, tokens = ChatTemplate(loaded.tokenizer), {"prompt": 0, "answer": 0}
    lead = len(loaded.tokenizer(chat.turn.lead, add_special_tokens=False)["input_ids"])
    assert lead >= 1
    for row in read_jsonl(run / "variants/base/responses/demo_harmful.jsonl"):
        if row["response"].strip():
            ids = loaded.tokenizer(row["response"], add_special_tokens=False)["input_ids"]
            # The last token is never routed: an end token where there is one.
            tokens["answer"] += len(ids) - (row["finish_reason"] != "stop")
            tokens["prompt"] += len(chat.tokens([row["prompt"]])[0]) + lead
    found = read_json(run / "variants/base/routes.json")["figures"]
    assert {
        row["phase"]: row["tokens"] for row in found if row["kind"] == "harmful" and row["layer"] is None
    } == tokens
    benign = read_jsonl(run / "variants/base/responses/demo_benign.jsonl")
    texts = [(row["response"], row["finish_reason"] == "stop") for row in benign if row["response"].strip()]
    written = [
        len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"]) + ended for text, ended in texts
    ]
    assert read_json(run / "variants/system_prompt/drift.json")["tokens"] == sum(written)


def test_routes_kept_are_measurements_that_gates_decide_and_the_conclusion_names(small_run, tmp_path):
    gates = tmp_path / "gates.yaml"
    metric = "routes_kept_harmful_prompt"
    bounds = [{"name": "keeps", "at_least": 0.5}, {"name": "keeps nearly all", "at_least": 0.9999}]
    gates.write_text(json.dumps({"gates": [{**bound, "metric": metric} for bound in bounds]}))
    row = read_run(small_run).summary.figure("unsafe_experts", None, metric)
    assert row.low <= row.value <= row.high < 0.9999
    assert main(["check", str(small_run), "--gates", str(gates)]) == 3
    gates.write_text(json.dumps({"gates": [{**bounds[0], "metric": metric}]}))
    assert main(["check", str(small_run), "--gates", str(gates)]) == 0
    assert "keeps of base's routes" in (small_run / "report.md").read_text()
    assert "top-k slots kept on harmful prompts" in (small_run / "report.html").read_text()


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
    assert not [*tmp_path.rglob("drift.json"), *tmp_path.rglob("routes.json")]
