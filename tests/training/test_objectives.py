"""Objectives: each one's value and gradient are those of its formula, written out over whole logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from harness.base.errors import BadInputError
from harness.config import TrainingConfig
from harness.models.moe import Expert
from harness.training.bank import ExpertBank
from harness.training.batches import steps_between
from harness.training.distributed import Ranks
from harness.training.examples import AIMS, Example
from harness.training.loop import train_bank
from harness.training.objectives import OBJECTIVES, Reading, aims_of

BETA = 0.3


def examples(aim: str, n: int = 4) -> list[Example]:
    return [
        Example(
            prompt=tuple(range(10 + i, 20 + 3 * i)),
            answer=(*range(100 + i, 101 + 3 * i), 2),
            aim=aim,
            rejected=tuple(range(300 + i, 305 + 2 * i)) if aim == "prefer" else (),
        )
        for i in range(n)
    ]


def moved_bank(loaded) -> ExpertBank:
    """A bank that differs from the model, so that the two say different things."""
    bank = ExpertBank(loaded.moe, [Expert(1, e) for e in range(8)] + [Expert(2, 3), Expert(2, 5)])
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return bank


def log_probabilities(model, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """Of every token of the vocabulary where each answer token is predicted, [A, V], one conversation at a time."""
    ids = torch.tensor([[*prompt, *answer]])
    return functional.log_softmax(model(ids).logits[0, len(prompt) - 1 : -1].float(), dim=-1)


def of_tokens(scores: torch.Tensor, answer: tuple[int, ...]) -> torch.Tensor:
    return scores[torch.arange(len(answer)), torch.tensor(answer)]


def by_hand(name: str, model, bank: ExpertBank, example: Example) -> torch.Tensor:
    """The loss of one example, summed over its answer tokens."""
    trained = log_probabilities(model, example.prompt, example.answer)
    with torch.no_grad(), bank.switched_off():
        frozen = log_probabilities(model, example.prompt, example.answer)
    if name == "retain_kl":
        return (frozen.exp() * (frozen - trained)).sum()
    chosen = of_tokens(trained, example.answer).sum()
    if name != "prefer":
        return -chosen
    rejected = of_tokens(log_probabilities(model, example.prompt, example.rejected), example.rejected).sum()
    with torch.no_grad(), bank.switched_off():
        against = of_tokens(frozen, example.answer).sum()
        against = (
            against
            - of_tokens(log_probabilities(model, example.prompt, example.rejected), example.rejected).sum()
        )
    margin = BETA * (chosen - rejected - against)
    return -torch.log(torch.sigmoid(margin)) * len(example.answer)


def gradients(bank: ExpertBank, loss: torch.Tensor) -> list[torch.Tensor]:
    loss.backward()
    found = [parameter.grad for parameter in bank.parameters()]
    for parameter in bank.parameters():
        parameter.grad = None
    return found


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("chunk", [5, 1024])
def test_value_and_gradient_are_those_of_the_formula(tiny_loaded, monkeypatch, family, name, chunk):
    monkeypatch.setattr("harness.training.answers.CHUNK", chunk)
    loaded = tiny_loaded(family)
    bank, objective = moved_bank(loaded), OBJECTIVES.get(name)
    rows, config = examples(objective.aim), TrainingConfig(batch_size=4)
    ((_, (part,)),) = steps_between(0, 1, loaded, rows, config, 0, Ranks())
    with bank.installed():
        expected = sum(by_hand(name, loaded.moe.model, bank, row) for row in rows) * 3 / 7
        wanted = gradients(bank, expected)
        loss = objective.loss(Reading(loaded.moe.model, part.batch, bank, BETA), 3.0, 7)
        found = gradients(bank, loss)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    assert any(float(gradient.abs().max()) > 1e-4 for gradient in found)


def test_a_step_minimises_the_weighted_sum_for_each_answer_token(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    bank = moved_bank(loaded)
    weights = {"refuse": 2.0, "retain": 1.0, "retain_kl": 0.5, "prefer": 3.0, "refuse_continued": 0.25}
    rows = [row for aim in AIMS for row in examples(aim)]
    tokens = sum(len(row.answer) for row in rows)
    own = dict.fromkeys(weights, 0.0)
    with bank.installed(), torch.no_grad():
        for name in weights:
            read = [row for row in rows if row.aim == OBJECTIVES.get(name).aim]
            own[name] = sum(float(by_hand(name, loaded.moe.model, bank, row)) for row in read)
    config = TrainingConfig(objectives=weights, preference_beta=BETA, batch_size=8, epochs=1)
    config = config.model_copy(update={"gradient_accumulation_steps": 2, "warmup_steps": 0})
    (row,) = train_bank(loaded, bank, rows, config, seed=0).log
    assert row["answer_tokens"] == tokens
    assert row["loss"] == pytest.approx(sum(weights[n] * own[n] for n in weights) / tokens, rel=1e-4)
    per_token = {name: own[name] / (tokens / 4) for name in weights}  # each aim has a quarter of the tokens
    assert row["losses"] == {name: pytest.approx(value, rel=1e-4) for name, value in per_token.items()}


def test_a_bank_that_has_not_moved_is_no_distance_away_and_prefers_nothing(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    bank = ExpertBank(loaded.moe, loaded.moe.all_experts())
    rows = examples("retain") + examples("prefer")
    config = TrainingConfig(objectives={"retain_kl": 1.0, "prefer": 1.0}, batch_size=8, max_steps=1)
    (row,) = train_bank(loaded, bank, rows, config, seed=0).log
    assert row["losses"]["retain_kl"] == pytest.approx(0.0, abs=1e-6)
    assert row["losses"]["prefer"] == pytest.approx(math.log(2), rel=1e-5)


def test_training_to_prefer_raises_the_refusal_over_the_compliant_answer(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    bank = ExpertBank(loaded.moe, loaded.moe.all_experts())
    config = TrainingConfig(objectives={"prefer": 1.0}, batch_size=4, epochs=15, learning_rate=2e-3)
    log = train_bank(loaded, bank, examples("prefer"), config, seed=0).log
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]


def test_the_reference_is_the_model_whatever_the_bank_holds(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    bank, config = moved_bank(loaded), TrainingConfig(batch_size=4)
    ((_, (part,)),) = steps_between(0, 1, loaded, examples("retain"), config, 0, Ranks())
    with torch.no_grad():
        expected = Reading(loaded.moe.model, part.batch).answers.hidden
        with bank.installed():
            reading = Reading(loaded.moe.model, part.batch, bank)
            torch.testing.assert_close(reading.reference.hidden, expected)
            assert not torch.allclose(reading.answers.hidden, expected, atol=1e-3)


def test_a_batch_of_preferences_holds_all_refusals_and_then_all_compliant_answers(tiny_loaded):
    loaded, rows = tiny_loaded("qwen3_moe"), examples("prefer")
    ((_, (part,)),) = steps_between(0, 1, loaded, rows, TrainingConfig(batch_size=4), 0, Ranks())
    width = part.batch.input_ids.shape[1]
    ids = [tuple(row[row != 0].tolist()) for row in part.batch.input_ids]
    halves = {(*row.prompt, *row.answer): (*row.prompt, *row.rejected) for row in rows}
    assert set(ids[:4]) == set(halves)
    assert [halves[row] for row in ids[:4]] == ids[4:]
    assert part.tokens == sum(len(row.answer) for row in rows)
    assert len(part.batch.targets) == part.tokens + sum(len(row.rejected) for row in rows)
    assert width == max(map(len, rows))


def test_aims_are_those_that_the_objectives_read():
    assert aims_of(["retain_kl", "refuse", "retain"]) == ["refuse", "retain"]
    assert aims_of(["prefer", "refuse_continued"]) == ["continue", "prefer"]
    with pytest.raises(BadInputError, match=r"unknown objective 'retain_lk': did you mean 'retain_kl'\?"):
        aims_of(["retain_lk"])
    with pytest.raises(BadInputError, match=r"training\.objectives names none"):
        aims_of([])


def test_examples_that_no_objective_reads_are_refused(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    config = TrainingConfig(objectives={"refuse": 1.0})
    with pytest.raises(BadInputError, match="none of them reads the examples of aim 'retain'"):
        train_bank(loaded, ExpertBank(loaded.moe, [Expert(1, 0)]), examples("retain"), config, seed=0)
