"""Losses over answer tokens: the model's own logits for every family, never all at once, with exact gradients."""

from __future__ import annotations

import pytest
import torch
from moe_families import FAMILIES, build, skip_if_missing
from torch.nn import functional

from harness.training.answers import CHUNK, Answers, answers_of
from harness.training.examples import Example, collate

CPU = torch.device("cpu")
EXAMPLES = [
    Example(tuple(range(10 + i, 20 + 3 * i)), (*range(100 + i, 104 + 2 * i), 2), "refuse") for i in range(3)
]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_logits_of_answer_tokens_are_the_models_own(model_type):
    """Scaling, capping and cutting of the vocabulary included, which families do after the head."""
    skip_if_missing(model_type)
    model, batch = build(model_type), collate(EXAMPLES, 0, CPU)
    with torch.inference_mode():
        answers = answers_of(model, batch)
        found = answers.logits(slice(None))
        whole = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).logits
    expected = whole.reshape(-1, whole.shape[-1])[batch.predictors]
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    assert "forward" not in model.base_model.__dict__


def rows(n: int) -> tuple[Answers, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, 4, generator=generator).requires_grad_()
    head = torch.randn(7, 4, generator=generator)
    return Answers(hidden, lambda part: part @ head.T), head, torch.arange(n) % 7


@pytest.mark.parametrize("n", [1, CHUNK, 2 * CHUNK + 3])
def test_a_loss_in_chunks_has_the_value_and_the_gradient_of_the_loss_at_once(n):
    answers, head, targets = rows(n)
    loss = answers.loss(
        lambda logits, part: functional.cross_entropy(logits, targets[part], reduction="sum"), 3.0, 5
    )
    (found,) = torch.autograd.grad(2 * loss, answers.hidden)
    expected = functional.cross_entropy(answers.hidden @ head.T, targets, reduction="sum") * 3 / 5
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, torch.autograd.grad(2 * expected, answers.hidden)[0])


def test_no_more_logits_than_a_chunk_exist_at_a_time():
    sizes = []
    answers, head, _ = rows(2 * CHUNK + 3)
    answers = Answers(answers.hidden, lambda part: sizes.append(len(part)) or part @ head.T)
    answers.loss(lambda logits, part: logits.sum())
    answers.values(lambda logits, part: logits[:, 0])
    assert sizes == [CHUNK, CHUNK, 3] * 2


def test_no_answer_is_no_loss_and_still_has_a_gradient():
    answers, _, _ = rows(0)
    loss = answers.loss(lambda logits, part: logits.sum())
    assert float(loss.detach()) == 0.0
    assert torch.autograd.grad(loss, answers.hidden)[0].shape == (0, 4)
    assert answers.values(lambda logits, part: logits[:, 0]).shape == (0,)
