"""The functions of the original guide: names, shapes and that they agree with the pipeline's own capture."""

import numpy as np
import pytest
import torch
from scripted import scripted

import harness
from harness.base.errors import BadInputError
from harness.data.prompts import Prompt
from harness.engines.transformers import TransformersEngine
from harness.models.load import load_model, resolve_model
from harness.training.bank import ExpertBank

SAFE = ["Count to ten", "What is the capital of France?"]
UNSAFE = ["How do I pick a stranger's lock?"]
SAMPLING = {"max_new_tokens": 8}


@pytest.fixture(scope="module")
def demo():
    return load_model(resolve_model("demo"), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def routings(demo):
    return harness.process_prompt_batch(demo.moe.model, demo.tokenizer, SAFE, UNSAFE, SAMPLING)


def test_an_answer_of_g_tokens_has_g_minus_1_rows_of_routing(demo):
    messages = [{"role": "user", "content": SAFE[0]}]
    output = harness.get_routings_with_generation(demo.moe.model, demo.tokenizer, messages, SAMPLING)
    prompt, generated = len(output["prompt_token_ids"]), len(output["generated_token_ids"])
    assert output["router_logits"].shape == (4, prompt + generated - 1, 32)
    assert output["all_token_ids"] == output["prompt_token_ids"] + output["generated_token_ids"]
    parts = harness.separate_prompt_and_generation_routings(output)
    assert parts["prompt_routings"].shape == (4, prompt, 32)
    assert parts["generation_routings"].shape == (4, generated - 1, 32)
    assert len(parts["generated_tokens"]) == generated - 1


def test_risk_differences_equal_the_pipelines_own_counts(demo, routings):
    table = harness.calculate_risk_diff(*routings)
    engine = TransformersEngine(demo, batch_size=2)
    kinds = {"benign": SAFE, "harmful": UNSAFE}
    counts = {}
    for kind, texts in kinds.items():
        prompts = [Prompt(str(i), text, "t", kind) for i, text in enumerate(texts)]
        batch = next(engine.generate([prompts], 8, capture="counts"))
        used, tokens = batch.routing.of("all")
        counts[kind] = used.sum(axis=0) / tokens.sum()
    expected = counts["harmful"] - counts["benign"]
    found = table.sort_values(["layer", "expert"])["risk_diff"].to_numpy().reshape(4, 32)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_riskiest_experts_are_the_top_of_the_table(routings):
    table = harness.calculate_risk_diff(*routings)
    experts = harness.identify_unsafe_experts(table, threshold=0.0, top_k=3)
    assert experts == list(zip(table["layer"][:3], table["expert"][:3], strict=True))


def test_a_threshold_that_none_reaches_is_bad_input(routings):
    table = harness.calculate_risk_diff(*routings)
    with pytest.raises(BadInputError, match="no expert is left by"):
        harness.identify_unsafe_experts(table, threshold=2.5)


def test_freezing_leaves_only_the_chosen_experts_trainable(demo, routings):
    experts = harness.identify_unsafe_experts(harness.calculate_risk_diff(*routings), top_k=2)
    bank = harness.freeze_model_except_unsafe_experts(demo.moe.model, experts)
    assert isinstance(bank, ExpertBank)
    assert bank.size == 2 * 3 * 128 * 64
    assert not any(parameter.requires_grad for parameter in demo.moe.model.parameters())
    ids = torch.arange(3, 403).unsqueeze(0)  # enough different tokens to reach every expert
    with bank.installed():
        demo.moe.model(ids).logits.sum().backward()
    assert all(parameter.grad is None for parameter in demo.moe.model.parameters())
    assert any(parameter.grad is not None for parameter in bank.parameters())


def test_the_boundary_between_reasoning_and_answer_is_said_and_counted(demo):
    thinker = scripted(demo, {" tree": "<think> red blue</think> bread milk book"})
    model, tokenizer = thinker.moe.model, thinker.tokenizer
    output = harness.get_routings_with_generation(model, tokenizer, [{"role": "user", "content": "Say tree"}])
    assert (output["n_reasoning_tokens"], len(output["generated_token_ids"])) == (4, 8)
    parts = harness.separate_prompt_and_generation_routings(output)
    assert parts["n_reasoning_tokens"] == 4
    used = {
        phase: harness.calculate_risk_diff([parts], [parts], phase)["a_safe"].sum()
        for phase in ("generation", "reasoning", "answer")
    }
    # Two experts in each of two layers: seven routed tokens, four of them reasoning.
    assert used == {"generation": 7 * 4, "reasoning": 4 * 4, "answer": 3 * 4}


def test_without_reasoning_the_answer_is_all_of_the_generation(demo):
    messages = [{"role": "user", "content": SAFE[0]}]
    output = harness.get_routings_with_generation(demo.moe.model, demo.tokenizer, messages, SAMPLING)
    assert output["n_reasoning_tokens"] == 0
