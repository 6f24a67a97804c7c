"""The training loop: what it minimises, in what steps, and when it gives up."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from torch.nn import functional

from harness.base.errors import BadInputError, HarnessError
from harness.config import TrainingConfig
from harness.experts.select import ExpertSelection
from harness.interventions.masking import steered
from harness.models.moe import Expert
from harness.training.bank import ExpertBank
from harness.training.batches import count_steps
from harness.training.examples import Batch, Example, collate
from harness.training.loop import answer_loss, train_bank

CPU = torch.device("cpu")


def examples(n: int = 8) -> list[Example]:
    """Conversations of unequal lengths, so that a mean of means is not the mean."""
    return [
        Example(
            prompt=tuple(range(10 + i, 20 + 3 * i)),
            answer=(*range(100 + i, 101 + 3 * i), 2),
            aim="refuse",
        )
        for i in range(n)
    ]


def every_expert(moe) -> list[Expert]:
    return moe.all_experts()


def one_step(loaded, **settings):
    bank = ExpertBank(loaded.moe, every_expert(loaded.moe))
    result = train_bank(
        loaded, bank, examples(), TrainingConfig(epochs=1, warmup_steps=0, **settings), seed=0
    )
    return bank, result.log


def hand_computed_loss(model, example: Example) -> float:
    ids = torch.tensor([[*example.prompt, *example.answer]])
    with torch.inference_mode():
        logits = model(ids).logits[0]
    steps = range(len(example.prompt) - 1, ids.shape[1] - 1)
    return -sum(float(functional.log_softmax(logits[t], -1)[ids[0, t + 1]]) for t in steps)


def test_loss_is_the_cross_entropy_of_answer_tokens(tiny_model, family):
    model = tiny_model(family)
    batch = collate(examples(3), 0, CPU)
    with torch.inference_mode():
        found = float(answer_loss(model, batch))
    assert found == pytest.approx(sum(hand_computed_loss(model, e) for e in examples(3)), rel=1e-5)


def test_loss_does_not_read_prompt_tokens_as_targets_nor_padding(tiny_model):
    """The same answers with another token as padding, and behind more padding."""
    model = tiny_model("qwen3_moe")
    batch = collate(examples(3), 0, CPU)
    padded = collate(examples(3), 1234, CPU)
    assert not torch.equal(batch.input_ids, padded.input_ids)
    wider = collate([*examples(3), Example(tuple(range(10, 60)), (7,), "refuse")], 0, CPU)
    rows, width = 3, wider.input_ids.shape[1]
    answers = wider.predictors < rows * width
    longer = Batch(*(t[:rows] for t in wider[:3]), wider.targets[answers], wider.predictors[answers])
    assert width > batch.input_ids.shape[1]
    with torch.inference_mode():
        expected = answer_loss(model, batch)
        torch.testing.assert_close(answer_loss(model, padded), expected)
        torch.testing.assert_close(answer_loss(model, longer), expected)


def test_loss_in_chunks_is_the_loss_in_one(tiny_model, monkeypatch):
    model, batch = tiny_model("qwen3_moe"), collate(examples(), 0, CPU)
    with torch.inference_mode():
        expected = answer_loss(model, batch)
        monkeypatch.setattr("harness.training.answers.CHUNK", 7)
        torch.testing.assert_close(answer_loss(model, batch), expected)


def test_a_routers_auxiliary_loss_stays_out(tiny_model):
    batch = collate(examples(3), 0, CPU)
    settings = {"output_router_logits": True}
    with torch.inference_mode():
        none = answer_loss(tiny_model("qwen3_moe", router_aux_loss_coef=0.0, **settings), batch)
        much = answer_loss(tiny_model("qwen3_moe", router_aux_loss_coef=100.0, **settings), batch)
    assert torch.equal(none, much)


def test_logged_loss_is_per_answer_token_before_the_step(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    tokens = sum(len(e.answer) for e in examples())
    expected = sum(hand_computed_loss(loaded.moe.model, e) for e in examples()) / tokens
    _, log = one_step(loaded, batch_size=8)
    assert log[0]["answer_tokens"] == tokens
    assert log[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_accumulated_small_batches_are_one_big_batch(tiny_loaded):
    big, log = one_step(tiny_loaded("qwen3_moe"), batch_size=8)
    small, parts = one_step(tiny_loaded("qwen3_moe"), batch_size=2, gradient_accumulation_steps=4)
    assert len(log) == len(parts) == 1
    assert parts[0]["answer_tokens"] == log[0]["answer_tokens"]
    assert parts[0]["loss"] == pytest.approx(log[0]["loss"], rel=1e-5)
    assert parts[0]["gradient_norm"] == pytest.approx(log[0]["gradient_norm"], rel=1e-4)
    for a, b in zip(big.parameters(), small.parameters(), strict=True):
        # AdamW's first step is the sign of the gradient, so a gradient near zero may step either way.
        assert torch.isclose(a, b, atol=1e-6).float().mean() > 0.99


def test_a_remainder_of_batches_makes_a_step_of_its_own(tiny_loaded):
    _, log = one_step(tiny_loaded("qwen3_moe"), batch_size=3, gradient_accumulation_steps=2)
    assert len(log) == 2  # three batches of 3, 3 and 2 examples in two steps
    assert sum(row["answer_tokens"] for row in log) == sum(len(e.answer) for e in examples())


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
def test_checkpointing_changes_nothing_but_memory(tiny_loaded, family):
    loaded = tiny_loaded(family)
    plain, log = one_step(tiny_loaded(family), batch_size=4)
    checkpointed, other = one_step(loaded, batch_size=4, gradient_checkpointing=True)
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in other], rel=1e-5)
    assert [row["gradient_norm"] for row in log] == pytest.approx(
        [row["gradient_norm"] for row in other], rel=1e-4
    )
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert torch.isclose(a, b, atol=1e-6).float().mean() > 0.99
    assert not any(module.training for module in loaded.moe.model.modules())
    assert not any(vars(module).get("gradient_checkpointing", False) for module in loaded.moe.model.modules())


def test_checkpointing_recomputes_the_layers(tiny_loaded):
    def forward_calls(**settings) -> int:
        loaded, calls = tiny_loaded("qwen3_moe"), Counter()
        loaded.moe.layers[0].experts.register_forward_pre_hook(lambda *_: calls.update(["forward"]))
        one_step(loaded, batch_size=8, **settings)
        return calls["forward"]

    assert (forward_calls(), forward_calls(gradient_checkpointing=True)) == (1, 2)


def test_the_seed_decides_the_training(tiny_loaded):
    def trained(seed: int) -> list[torch.Tensor]:
        loaded = tiny_loaded("qwen3_moe")
        bank = ExpertBank(loaded.moe, every_expert(loaded.moe))
        train_bank(loaded, bank, examples(), TrainingConfig(epochs=2, batch_size=2), seed)
        return bank.parameters()

    first, again, other = trained(0), trained(0), trained(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_training_lowers_the_loss_and_leaves_the_models_own_weights(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    before = {name: value.clone() for name, value in loaded.moe.model.state_dict().items()}
    bank = ExpertBank(loaded.moe, every_expert(loaded.moe))
    config = TrainingConfig(epochs=20, batch_size=8, learning_rate=5e-3)
    log = train_bank(loaded, bank, examples(), config, seed=0).log
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]
    assert all(torch.equal(v, before[name]) for name, v in loaded.moe.model.state_dict().items())


def test_weight_decay_moves_no_expert_but_the_trained(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    before = loaded.moe.layer(1).weight("down_proj").clone()
    bank = ExpertBank(loaded.moe, [Expert(1, 3)])
    train_bank(loaded, bank, examples(), TrainingConfig(epochs=1, weight_decay=0.5), seed=0)
    assert torch.equal(loaded.moe.layer(1).weight("down_proj"), before)


def test_learning_rate_warms_up_then_decays_to_a_tenth(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    bank = ExpertBank(loaded.moe, [Expert(1, 0)])
    steps = []
    config = TrainingConfig(epochs=5, batch_size=2, warmup_steps=3, learning_rate=1.0e-3)
    log = train_bank(loaded, bank, examples(), config, seed=0, on_step=steps.append).log
    rates = [row["learning_rate"] for row in log]
    assert len(steps) == len(log) == 20
    assert rates[:4] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1.0e-3])
    assert all(a > b for a, b in itertools.pairwise(rates[3:]))
    assert rates[-1] == pytest.approx((0.55 + 0.45 * math.cos(math.pi * 16 / 17)) * 1e-3)
    assert [row["epoch"] for row in log] == [1 + i // 4 for i in range(20)]


@pytest.mark.parametrize(
    ("n", "settings", "steps"),
    [
        (8, {"epochs": 1, "batch_size": 8}, 1),
        (9, {"epochs": 1, "batch_size": 8}, 2),
        (9, {"epochs": 3, "batch_size": 2, "gradient_accumulation_steps": 2}, 9),
        (9, {"epochs": 3, "batch_size": 2, "max_steps": 4}, 4),
        (1, {"epochs": 1, "batch_size": 8, "max_steps": 4}, 1),
    ],
)
def test_steps_are_counted_as_they_are_taken(tiny_loaded, n, settings, steps):
    loaded, config = tiny_loaded("qwen3_moe"), TrainingConfig(**settings)
    bank = ExpertBank(loaded.moe, every_expert(loaded.moe))
    assert count_steps(n, config) == steps
    assert len(train_bank(loaded, bank, examples(n), config, seed=0).log) == steps


def test_a_loss_that_is_not_finite_fails_the_run(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    loaded.moe.model.lm_head.weight.fill_(math.nan)
    bank = ExpertBank(loaded.moe, every_expert(loaded.moe))
    with pytest.raises(HarnessError, match=r"the loss of step 1 is nan") as error:
        train_bank(loaded, bank, examples(), TrainingConfig(), seed=0)
    assert error.value.exit_code == 1
    with bank.installed():  # the first bank was taken out in spite of the error
        pass


def test_a_bank_that_no_token_reaches_fails_the_run(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    selected = (Expert(1, 3), Expert(2, 0))
    bank = ExpertBank(loaded.moe, selected)
    unreachable = steered(loaded.moe, ExpertSelection("test", "all", selected).by_layer())
    with unreachable, pytest.raises(HarnessError, match="no training token"):
        train_bank(loaded, bank, examples(), TrainingConfig(epochs=1), seed=0)


def test_selected_experts_that_no_token_reaches_are_reported(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    bank = ExpertBank(loaded.moe, [Expert(1, 3), *(Expert(2, e) for e in range(8))])
    before = bank.layers[1].weights["down_proj"].detach().clone()
    with steered(loaded.moe, ExpertSelection("test", "all", (Expert(1, 3),)).by_layer()):
        result = train_bank(loaded, bank, examples(), TrainingConfig(epochs=1), seed=0)
    assert result.without_gradient == [Expert(1, 3)]
    assert torch.equal(bank.layers[1].weights["down_proj"], before)


def test_no_examples_is_an_error(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    with pytest.raises(BadInputError, match="nothing to train on"):
        train_bank(loaded, ExpertBank(loaded.moe, [Expert(1, 0)]), [], TrainingConfig(), seed=0)


def test_an_example_beyond_the_context_is_an_error(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    long = [Example(tuple(range(3, 260)), (2,), "refuse")]
    with pytest.raises(BadInputError, match="has 258 tokens, the model's context holds 256"):
        train_bank(loaded, ExpertBank(loaded.moe, [Expert(1, 0)]), long, TrainingConfig(), seed=0)


@pytest.mark.parametrize(
    ("settings", "knobs"),
    [
        ({}, ["training.batch_size", "training.gradient_checkpointing=true", "training.lora_rank"]),
        ({"gradient_checkpointing": True, "lora_rank": 2}, ["training.batch_size"]),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_out_of_memory_names_what_to_turn(tiny_loaded, settings, knobs, device):
    loaded = tiny_loaded("qwen3_moe")

    def ask_for_too_much(*_):
        if device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        torch.empty(2**50)  # what the CPU's allocator says is its own

    loaded.moe.layers[0].experts.register_forward_pre_hook(ask_for_too_much)
    bank = ExpertBank(loaded.moe, [Expert(1, 0)])
    with pytest.raises(HarnessError, match="out of memory while training: lower") as error:
        train_bank(loaded, bank, examples(), TrainingConfig(**settings), seed=0)
    known = ["training.batch_size", "training.gradient_checkpointing=true", "training.lora_rank"]
    assert [knob for knob in known if knob in str(error.value)] == knobs
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)


def test_another_error_of_torch_is_not_taken_for_a_lack_of_memory(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    loaded.moe.layers[0].experts.register_forward_pre_hook(lambda *_: torch.ones(2) @ torch.ones(3))
    bank = ExpertBank(loaded.moe, [Expert(1, 0)])
    with pytest.raises(RuntimeError, match="size") as error:
        train_bank(loaded, bank, examples(), TrainingConfig(), seed=0)
    assert not isinstance(error.value, HarnessError)


@pytest.mark.parametrize(
    ("expert", "message"),
    [
        (Expert(1, 8), "layer 1 has no expert 8: it has experts 0 to 7"),
        (Expert(0, 0), "layer 0"),  # dense
        (Expert(3, 0), "layer 3"),  # beyond the last
    ],
)
def test_experts_that_do_not_exist_are_bad_input(tiny_loaded, expert, message):
    with pytest.raises(BadInputError, match=message) as error:
        ExpertBank(tiny_loaded("qwen3_moe").moe, [Expert(1, 0), expert])
    assert error.value.exit_code == 2
