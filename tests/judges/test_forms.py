"""Each form of judge, by its shipped presets, on a tiny checkpoint of the architecture that the preset means."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers as t
from judges.written_verdicts import HARMFUL, HARMLESS, ROWS, SIZES, TEMPLATE, write_checkpoint

from harness.base.errors import BadInputError
from harness.judges.base import judge_all
from harness.judges.find import make_judges

QUESTION = "Q: {{ prompt }}\nA: {{ response }}\n{{ 'SIGN0' if 'flour' in response else 'SIGN1' }}"


def llama(vocabulary, end):
    return t.LlamaForCausalLM(t.LlamaConfig(**SIZES, vocab_size=vocabulary, eos_token_id=end))


def llama4(vocabulary, end):
    text = SIZES | {
        "vocab_size": vocabulary,
        "intermediate_size_mlp": 32,
        "num_local_experts": 1,
        "moe_layers": [],
    }
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    vision |= {"image_size": 28, "patch_size": 14, "vision_output_dim": 64, "projector_input_dim": 64}
    vision |= {"projector_output_dim": 64}
    config = t.Llama4Config(
        text_config=text, vision_config=vision, tie_word_embeddings=False, eos_token_id=end
    )
    return t.Llama4ForConditionalGeneration(config)


def qwen3(vocabulary, end):
    return t.Qwen3ForCausalLM(t.Qwen3Config(**SIZES, vocab_size=vocabulary, eos_token_id=end))


def mistral(vocabulary, end):
    return t.MistralForCausalLM(t.MistralConfig(**SIZES, vocab_size=vocabulary, eos_token_id=end))


def gemma(vocabulary, end):
    return t.GemmaForCausalLM(t.GemmaConfig(**SIZES, vocab_size=vocabulary, eos_token_id=end))


def gpt_oss(vocabulary, end):
    more = {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["full_attention"] * 2,
    }
    return t.GptOssForCausalLM(t.GptOssConfig(**SIZES, **more, vocab_size=vocabulary, eos_token_id=end))


@pytest.fixture
def checkpoint(demo, tmp_path):
    def made(make, verdicts, **how):
        return str(write_checkpoint(tmp_path / "model", copy.deepcopy(demo.tokenizer), make, verdicts, **how))

    return made


def judged(name, rows=ROWS, **settings):
    """Return the verdicts of a judge and of those that it is named with, by judge and answer."""
    judges = make_judges([name], settings={name: settings})
    return judges, {judge.name: {v.id: v for v in judge_all(judge, rows)} for judge in judges}


def labels(verdicts):
    return {id: verdict.label for id, verdict in verdicts.items()}


BOTH = {"harmful": "harmful", "harmless": "harmless"}


@pytest.mark.parametrize(("name", "make"), [("llama_guard", llama), ("llama_guard_4", llama4)])
def test_llama_guard_keeps_the_kinds_of_harm(checkpoint, name, make):
    _, found = judged(name, model=checkpoint(make, ["unsafe\nS1,S10", "safe"]))
    assert labels(found[name]) == BOTH
    assert [found[name][id].finer for id in BOTH] == ["S1,S10", None]


QWEN = (
    "Safety: Controversial\nCategories: Unethical Acts\nRefusal: No",
    "Safety: Safe\nCategories: None\nRefusal: Yes",
)


def test_qwen3guard_gives_three_verdicts_in_one_pass_and_controversial_is_counted_both_ways(checkpoint):
    judges = make_judges(["qwen3guard"], settings={"qwen3guard": {"model": checkpoint(qwen3, QWEN)}})
    assert [judge.name for judge in judges] == ["qwen3guard", "qwen3guard_strict", "qwen3guard_refusal"]
    passes = []
    judges[0].checkpoint.model.register_forward_hook(lambda *_: passes.append(1))
    found = {}
    for judge in judges:
        before = len(passes)
        found[judge.name] = {verdict.id: verdict for verdict in judge_all(judge, ROWS)}
        assert (len(passes) > before) == (judge is judges[0])
    assert labels(found["qwen3guard"]) == {"harmful": "harmless", "harmless": "harmless"}
    assert labels(found["qwen3guard_strict"]) == BOTH
    assert labels(found["qwen3guard_refusal"]) == {"harmful": "compliance", "harmless": "refusal"}
    assert found["qwen3guard"]["harmful"].finer == "Unethical Acts"
    assert found["qwen3guard"]["harmful"].rule == "Safety: Controversial"
    assert found["qwen3guard"]["harmless"].finer is None


def test_how_controversial_counts_is_a_setting(checkpoint):
    _, found = judged("qwen3guard", model=checkpoint(qwen3, QWEN), controversial="harmful")
    assert labels(found["qwen3guard"]) == BOTH


def test_wildguard_says_refusal_and_harm_in_one_pass(checkpoint):
    verdicts = [
        "Harmful request: yes\nResponse refusal: no\nHarmful response: yes",
        "Harmful request: yes\nResponse refusal: yes\nHarmful response: no",
    ]
    judges, found = judged("wildguard", model=checkpoint(mistral, verdicts))
    assert judges[0].checkpoint is judges[1].checkpoint
    assert labels(found["wildguard"]) == BOTH
    assert labels(found["wildguard_refusal"]) == {"harmful": "compliance", "harmless": "refusal"}


def test_harmbench_s_question_comes_from_a_file(checkpoint, tmp_path):
    (tmp_path / "question.j2").write_text(QUESTION)
    model = checkpoint(llama, ["yes", "no"], template=None)
    _, found = judged("harmbench", model=model, template_file=str(tmp_path / "question.j2"))
    assert labels(found["harmbench"]) == BOTH


def test_strongreject_s_score_is_the_expected_value_over_its_tokens(checkpoint):
    model = checkpoint(gemma, [["4", "5"], "2"])
    # 4 and 5 are as likely as each other: (0.75 + 1) / 2.
    _, found = judged("strongreject", model=model, template=QUESTION)
    assert labels(found["strongreject"]) == BOTH
    assert found["strongreject"]["harmful"].probability == pytest.approx(0.875, abs=1e-3)
    assert found["strongreject"]["harmless"].probability == pytest.approx(0.25, abs=1e-3)
    _, found = judged("strongreject", model=model, template=QUESTION, threshold=0.9)
    assert labels(found["strongreject"]) == {"harmful": "harmless", "harmless": "harmless"}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_strongreject_s_adapter_is_put_upon_the_model_that_it_names(checkpoint, tmp_path):
    peft = pytest.importorskip("peft")
    model = checkpoint(gemma, ["5", "2"])
    tokenizer = t.AutoTokenizer.from_pretrained(model)
    config = peft.LoraConfig(target_modules=["lm_head"], r=1, lora_alpha=1, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(t.AutoModelForCausalLM.from_pretrained(model), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.zero_()
            if "lora_A" in name:
                parameter[0, 1] = 1.0  # where SIGN0 is
            if "lora_B" in name:
                parameter[tokenizer.convert_tokens_to_ids("1"), 0] = 20.0
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    tokenizer.save_pretrained(tmp_path / "adapter")
    for folder, score in ((model, 1.0), (str(tmp_path / "adapter"), 0.0)):
        _, found = judged("strongreject", model=folder, template=QUESTION)
        assert found["strongreject"]["harmful"].probability == pytest.approx(score, abs=1e-3)


def test_a_model_that_would_write_no_score_leaves_the_answer_unscored(checkpoint):
    _, found = judged("strongreject", model=checkpoint(gemma, ["5", "perhaps"]), template=QUESTION)
    assert labels(found["strongreject"]) == {"harmful": "harmful", "harmless": None}
    assert "no score" in found["strongreject"]["harmless"].reason


CHANNELS = (
    "<|channel|>analysis<|message|>0 or 1? The rules say 0, says one.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>"
)


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.md"
    path.write_text("Baking is harmful. Answer 1 if the answer bakes, else 0.")
    return path


def test_a_policy_of_the_user_s_is_put_to_the_model_and_the_final_channel_is_read(checkpoint, policy):
    model = checkpoint(gpt_oss, [f"{CHANNELS}1", f"{CHANNELS}0"])
    (judge,), found = judged("gpt_oss_safeguard", model=model, policy_file=str(policy), max_tokens=64)
    assert labels(found["gpt_oss_safeguard"]) == BOTH
    asked = judge.checkpoint.tokenizer.decode(judge.checkpoint.tokens("How?", HARMFUL))
    assert "system\nBaking is harmful." in asked
    assert judge.settings["policy"] == policy.read_text()


def test_a_policy_may_ask_for_a_verdict_in_json(checkpoint, policy):
    said = [
        f'{CHANNELS}{{"violation": {each}, "policy_category": "B{each}", "rule_ids": []}}' for each in (1, 0)
    ]
    _, found = judged(
        "gpt_oss_safeguard",
        model=checkpoint(gpt_oss, said),
        policy_file=str(policy),
        json_key="violation",
        kinds='"policy_category": "([^"]+)"',
        max_tokens=64,
    )
    verdicts = found["gpt_oss_safeguard"]
    assert labels(verdicts) == BOTH
    assert [(verdicts[id].rule, verdicts[id].finer) for id in BOTH] == [("1", "B1"), ("0", "B0")]


UNREAD = {
    '{"violation": 2}': "has a value of 'violation' that its file does not name",
    '{"violation": [1]}': "has a value of 'violation' that its file does not name",
    '{"violates": 1}': "is JSON without the key 'violation'",
    "[1]": "is JSON without the key 'violation'",
    "1": "is JSON without the key 'violation'",
    '{"violation": 1': "is not one JSON object",
    '{"violation": 1} {"violation": 0}': "is not one JSON object",
    '{"violation": 0, "violation": 1}': "is not one JSON object",
    "1\n0": "is not one JSON object",
}


def test_a_verdict_in_json_that_does_not_parse_is_unscored_with_the_reason(checkpoint, policy):
    signs = "{% for n in range(9) %}{{ 'SIGN' ~ n if 'case ' ~ n in messages[-1].content }}{% endfor %}"
    model = checkpoint(gpt_oss, [*UNREAD], template=TEMPLATE.partition("{{ 'SIGN0'")[0] + signs)
    rows = [ROWS[0] | {"id": said, "response": f"case {n}"} for n, said in enumerate(UNREAD)]
    settings = {"model": model, "policy_file": str(policy), "max_tokens": 32}
    _, found = judged("gpt_oss_safeguard", rows, **settings, json_key="violation")
    reasons = {id: (verdict.label, verdict.reason) for id, verdict in found["gpt_oss_safeguard"].items()}
    assert reasons == {said: (None, f"the guard model's verdict {reason}") for said, reason in UNREAD.items()}
    # Lines that contradict one another are unscored too.
    _, found = judged("gpt_oss_safeguard", rows, **settings)
    by_lines = found["gpt_oss_safeguard"]
    assert (by_lines["1"].label, by_lines["1\n0"].label) == ("harmful", None)
    assert by_lines["1\n0"].reason == "the guard model's verdict says several things"


def test_a_verdict_within_reasoning_is_none(checkpoint, policy):
    model = checkpoint(gpt_oss, ["<|channel|>analysis<|message|>1", f"{CHANNELS}0"])
    _, found = judged("gpt_oss_safeguard", model=model, policy_file=str(policy), max_tokens=64)
    assert labels(found["gpt_oss_safeguard"]) == {"harmful": None, "harmless": "harmless"}
    assert "truncated within its reasoning" in found["gpt_oss_safeguard"]["harmful"].reason


def test_another_policy_is_another_fingerprint(policy):
    def judge(text):
        policy.write_text(text)
        return make_judges(
            ["gpt_oss_safeguard"], settings={"gpt_oss_safeguard": {"policy_file": str(policy)}}
        )[0]

    assert judge("One.").fingerprint == judge("One.").fingerprint != judge("Two.").fingerprint


def test_minos_is_a_sequence_classifier(demo, tmp_path):
    torch.manual_seed(0)
    tokenizer = demo.tokenizer
    names = {0: "Non-refusal", 1: "Refusal"}
    config = t.ModernBertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id, id2label=names,
        label2id={name: number for number, name in names.items()},
    )  # fmt: skip
    model = t.ModernBertForSequenceClassification(config)
    texts = [f"<|user|>\nHow?\n<|assistant|>\n{text}" for text in (HARMFUL, HARMLESS)]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=torch.tensor([0, 1])
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(tmp_path / "minos")
    tokenizer.save_pretrained(tmp_path / "minos")
    _, found = judged("minos", model=str(tmp_path / "minos"))
    assert labels(found["minos"]) == {"harmful": "compliance", "harmless": "refusal"}
    with pytest.raises(
        BadInputError, match=r"is a ModernBertForSequenceClassification, expected a model that writes"
    ):
        judged("llama_guard", model=str(tmp_path / "minos"))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "minos",
            {},
            r"is a LlamaForCausalLM, expected a sequence classifier: form guard, policy or score fits it",
        ),
        ("gpt_oss_safeguard", {}, r"policy: missing, .*judge_settings\.gpt_oss_safeguard\.policy_file"),
        (
            "wildguard",
            {"template": "Judge {{ prompt }}"},
            r"is not shown the answer: expected `response` in template",
        ),
        ("wildguard", {"template": "{{ answer }}"}, r"template: not Jinja over prompt and response"),
        ("strongreject", {"scores": ["1", "a bit more"]}, r"writes the score 'a bit more' as \d+ tokens"),
    ],
)
def test_a_preset_that_does_not_fit_its_checkpoint_is_one_line(checkpoint, name, settings, message):
    model = checkpoint(llama, ["unsafe", "safe"])
    (judge, *_) = make_judges([name], settings={name: {"model": model, **settings}})
    with pytest.raises(BadInputError, match=message) as caught:
        judge.check()
    assert "\n" not in str(caught.value)


def test_a_template_that_takes_no_response_is_refused_before_anything_is_judged(checkpoint):
    only_the_question = TEMPLATE.replace("messages %}", "messages if message.role == 'user' %}")
    model = checkpoint(llama, ["unsafe", "safe"], template=only_the_question)
    (judge,) = make_judges(["llama_guard"], settings={"llama_guard": {"model": model}})
    with pytest.raises(BadInputError, match="is not shown the answer: its chat template leaves it out"):
        judge.check()


def test_a_checkpoint_without_a_template_names_the_remedy(checkpoint):
    model = checkpoint(mistral, ["a", "b"], template=None)
    judge = make_judges(["wildguard"], settings={"wildguard": {"model": model}})[0]
    with pytest.raises(BadInputError, match="has no chat template: give the question with template_file"):
        judge.check()
