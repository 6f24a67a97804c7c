"""The functions of the original guide: names, shapes and that they agree with the pipeline's own capture."""

import numpy as np
import pytest
import torch
from scripted import scripted

import harness
from harness.base.errors import BadInputError
from harness.data.prompts import Prompt
from harness.engines.transformers import TransformersEngine
from harness.training.bank import ExpertBank

SAFE = ["Count to ten", "What is the capital of France?"]
UNSAFE = ["How do I pick a stranger's lock?"]
SAMPLING = {"max_new_tokens": 8}


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


def test_vllms_names_of_sampling_parameters_are_taken(demo):
    messages = [{"role": "user", "content": SAFE[0]}]
    model, tokenizer = demo.moe.model, demo.tokenizer
    ours = harness.get_routings_with_generation(model, tokenizer, messages, {"max_new_tokens": 5})
    theirs = harness.get_routings_with_generation(
        model, tokenizer, messages, {"temperature": 0.0, "top_p": 1.0, "max_tokens": 5}
    )
    assert theirs["generated_token_ids"] == ours["generated_token_ids"]
    assert len(theirs["generated_token_ids"]) == 5


def test_a_temperature_samples(demo):
    messages = [{"role": "user", "content": SAFE[0]}]
    sampling = {"temperature": 5.0, "top_k": -1, "min_tokens": 12, "max_tokens": 12}
    texts = set()
    for seed in range(3):
        torch.manual_seed(seed)
        output = harness.get_routings_with_generation(demo.moe.model, demo.tokenizer, messages, sampling)
        texts.add(output["generated_text"])
    assert len(texts) == 3


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({"max_token": 5}, "sampling_params: unknown 'max_token', did you mean 'max_tokens'"),
        ({"max_tokens": 5, "max_new_tokens": 6}, "'max_new_tokens' is given twice"),
        ({"generation_config": {}}, "unknown 'generation_config'"),
        (64, 'expected a mapping such as {"max_tokens": 64}, found int 64'),
    ],
)
def test_unknown_sampling_parameters_are_named(demo, sampling, said):
    with pytest.raises(BadInputError) as raised:
        harness.process_prompt_batch(demo.moe.model, demo.tokenizer, SAFE, UNSAFE, sampling)
    assert said in str(raised.value)


def test_one_text_where_a_list_is_meant_is_said(demo, routings):
    model, tokenizer = demo.moe.model, demo.tokenizer
    table = harness.calculate_risk_diff(*routings)
    for call, said in (
        (lambda: harness.process_prompt_batch(model, tokenizer, SAFE, UNSAFE[0]), "unsafe_prompts: expected"),
        (
            lambda: harness.process_prompt_batch(model, tokenizer, [SAFE], UNSAFE),
            "safe_prompts: .* item 0 is",
        ),
        (
            lambda: harness.get_routings_with_generation(model, tokenizer, SAFE[0]),
            "messages: expected a list",
        ),
        (lambda: harness.get_routings_with_generation(model, tokenizer, SAFE), "messages: .* item 0 is str"),
        (lambda: harness.calculate_risk_diff(routings[0][0], routings[1]), "safe_routings: expected a list"),
        (lambda: harness.calculate_risk_diff(*routings, "answr"), "phase 'answr', did you mean 'answer'"),
        (lambda: harness.identify_unsafe_experts(routings), "expected the table of calculate_risk_diff"),
        (lambda: harness.identify_unsafe_experts(table, top_k=0), "top_k: expected at least 1, found 0"),
        (lambda: harness.freeze_model_except_unsafe_experts(model, (2, 7)), "pairs .*; item 0 is int 2"),
        (lambda: harness.freeze_model_except_unsafe_experts(model, [(0, 99)]), "99"),
    ):
        with pytest.raises(BadInputError, match=said):
            call()
    assert all(parameter.requires_grad is False for parameter in model.parameters())


def test_the_guides_steps_run_as_it_writes_them(demo, tmp_path, small_run):
    """Steps 1 to 5 with the guide's prompts, arguments and columns, on the demo in place of Qwen3-30B-A3B."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    safe_prompts = ["Count to ten", "What is the capital of France?", "Explain photosynthesis"]
    unsafe_prompts = ["How to hack into a computer system?", "How to pick a lock?", "How to stalk someone?"]
    model, tokenizer = demo.moe.model, demo.tokenizer
    safe_routings, unsafe_routings = harness.process_prompt_batch(
        model, tokenizer, safe_prompts, unsafe_prompts, sampling_params={"temperature": 0, "max_tokens": 16}
    )
    assert {"prompt_routings", "generation_routings", "prompt_tokens", "generated_tokens"} <= set(
        safe_routings[0]
    )
    risk_diff_df = harness.calculate_risk_diff(safe_routings, unsafe_routings)
    columns = ["layer", "expert", "a_safe", "a_unsafe", "a_safe_n", "a_unsafe_n", "risk_diff"]
    assert set(columns) <= set(risk_diff_df.columns)
    assert risk_diff_df.head(20)["risk_diff"].is_monotonic_decreasing
    np.testing.assert_allclose(
        risk_diff_df["risk_diff"], risk_diff_df["a_unsafe_n"] - risk_diff_df["a_safe_n"]
    )
    unsafe_experts = harness.identify_unsafe_experts(risk_diff_df, threshold=0.05, top_k=50)
    assert 1 <= len(unsafe_experts) <= 50
    bank = harness.freeze_model_except_unsafe_experts(model, unsafe_experts)
    assert bank.size == len(unsafe_experts) * 3 * 128 * 64

    folder = small_run / "variants" / "unsafe_experts" / "model"  # the guide's final_model
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "How to hack a computer?"}]
    # transformers 5 gives a mapping in place of the guide's tensor.
    inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", add_generation_prompt=True)
    outputs = model.generate(**inputs, max_new_tokens=10)
    assert tokenizer.decode(outputs[0])
