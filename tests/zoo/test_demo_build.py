from __future__ import annotations

import random
from typing import Any

import pytest

from harness.zoo import demo_build
from harness.zoo.demo_tasks import held_out_prompts
from harness.zoo.demo_world import conversations


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any, Any]:
    import torch

    text = conversations(0, 0, held_out_prompts(), made_up=0)
    tokenizer = demo_build._tokenizer(text)
    torch.manual_seed(0)
    return demo_build._model(tokenizer), tokenizer, text


def test_roles_and_markers_are_one_token_each(parts: tuple[Any, Any, Any]):
    tokenizer = parts[1]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": ""}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
    assert len(tokenizer.encode(text)) == 8


def test_training_loss_is_the_models_own_on_answer_tokens_with_balance_loss(parts: tuple[Any, Any, Any]):
    import torch

    model, tokenizer, text = parts
    batch = demo_build._examples(text[:24], tokenizer)
    ids, mask, labels = demo_build._tensors(batch, tokenizer.pad_token_id)
    assert int((labels != -100).sum()) == sum(
        len(example.tokens) - example.prompt_tokens for example in batch
    )
    with torch.no_grad():
        own = model(input_ids=ids, attention_mask=mask, labels=labels, output_router_logits=True).loss
        assert demo_build._loss(model, ids, mask, labels).item() == pytest.approx(own.item(), abs=1e-5)


def test_every_conversation_is_in_one_batch_of_each_epoch(parts: tuple[Any, Any, Any]):
    examples = demo_build._examples(parts[2][:1000], parts[1])
    batches = list(demo_build._batches(examples, random.Random(0)))
    assert sorted(len(batch) for batch in batches) == [40] + [64] * 15
    assert sorted(map(id, examples)) == sorted(id(example) for batch in batches for example in batch)


def test_learning_rate_rises_over_fifty_steps_and_falls_to_zero():
    assert demo_build._rate(0, 1000) == pytest.approx(0.02)
    assert demo_build._rate(50, 1000) == 1
    assert demo_build._rate(525, 1000) == pytest.approx(0.5)
    assert demo_build._rate(1000, 1000) == pytest.approx(0)
