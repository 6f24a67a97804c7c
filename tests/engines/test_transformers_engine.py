"""The engine: fixed batches, greedy answers, and where an answer ends."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import HarnessError
from harness.data.prompts import Prompt
from harness.engines.transformers import TransformersEngine


def prompts_of(texts) -> list[Prompt]:
    return [Prompt(f"p{i:02}", text, "task", "benign") for i, text in enumerate(texts)]


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=20), size=st.integers(1, 7), seed=st.randoms()
)
def test_batches_hold_every_prompt_once_the_longest_first_in_any_order_of_asking(demo, lengths, size, seed):
    engine = TransformersEngine(demo, size)
    prompts = prompts_of(["fruit " * n for n in lengths])
    batches = engine.batches(prompts)
    assert sorted(p.id for batch in batches for p in batch) == [p.id for p in prompts]
    assert max(map(len, batches)) <= size
    asked = [len(engine.chat.tokens([p.text])[0]) for batch in batches for p in batch]
    assert asked == sorted(asked, reverse=True)
    shuffled = list(prompts)
    seed.shuffle(shuffled)
    assert engine.batches(shuffled) == batches


def test_an_answer_is_the_greedy_one_step_by_step(demo):
    (result,) = TransformersEngine(demo, 1).generate([prompts_of(["Name three fruits."])], 24)
    (row,) = result.responses
    ids = TransformersEngine(demo, 1).chat.tokens([row.prompt])[0]
    expected = []
    with torch.inference_mode():
        while len(expected) < 24 and (not expected or expected[-1] not in demo.ends):
            expected.append(int(demo.moe.model(torch.tensor([ids + expected])).logits[0, -1].argmax()))
    assert row.generated_tokens == len(expected)
    assert row.response == demo.tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert row.prompt_tokens == len(ids)
    assert result.routing is None


def test_finish_reason_tells_a_truncated_answer_from_a_whole_one(demo):
    batch = [prompts_of(["Name three fruits."])]
    (whole,) = next(TransformersEngine(demo, 1).generate(batch, 40)).responses
    assert whole.finish_reason == "stop"
    (exact,) = next(TransformersEngine(demo, 1).generate(batch, whole.generated_tokens)).responses
    assert (exact.finish_reason, exact.response) == ("stop", whole.response)
    (truncated,) = next(TransformersEngine(demo, 1).generate(batch, whole.generated_tokens - 1)).responses
    assert truncated.finish_reason == "length"
    assert truncated.generated_tokens == whole.generated_tokens - 1


def test_a_system_prompt_is_read(demo):
    engine, prompts = TransformersEngine(demo, 4), prompts_of(["Hi"])
    plain, prompted = (
        next(engine.generate([prompts], 4, system)).responses[0] for system in (None, "Decline.")
    )
    assert prompted.prompt_tokens > plain.prompt_tokens
    assert prompted.prompt == plain.prompt == "Hi"


def test_a_checkpoints_sampling_settings_do_not_matter(demo, monkeypatch):
    expected = next(TransformersEngine(demo, 1).generate([prompts_of(["Hi"])], 12)).responses
    for name, value in (("do_sample", True), ("temperature", 50.0), ("top_k", 50)):
        monkeypatch.setattr(demo.moe.model.generation_config, name, value)
    assert next(TransformersEngine(demo, 1).generate([prompts_of(["Hi"])], 12)).responses == expected


def test_every_end_token_of_a_list_ends_an_answer(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    free = next(TransformersEngine(loaded, 1).generate([prompts_of(["Hi"])], 6))
    assert free.responses[0].finish_reason == "length"
    ids = TransformersEngine(loaded, 1).chat.tokens(["Hi"])[0]
    with torch.inference_mode():
        first = int(loaded.moe.model(torch.tensor([ids])).logits[0, -1].argmax())
    loaded.moe.model.generation_config.eos_token_id = [2, first]
    (row,) = next(TransformersEngine(loaded, 1).generate([prompts_of(["Hi"])], 6)).responses
    assert (row.finish_reason, row.generated_tokens) == ("stop", 1)


def test_running_out_of_memory_says_which_setting_to_lower(demo, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(demo.moe.model, "generate", fail)
    with pytest.raises(HarnessError, match=r"while 1 prompts were answered: lower generation\.batch_size"):
        next(TransformersEngine(demo, 1).generate([prompts_of(["Hi"])], 6))
