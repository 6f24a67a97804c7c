"""A training that was broken off goes on from its last checkpoint to the same bits."""

from __future__ import annotations

import pytest
import torch

from harness.base.errors import HarnessError
from harness.config import EarlyStoppingConfig, TrainingConfig
from harness.models.moe import Expert
from harness.training.bank import ExpertBank
from harness.training.examples import Example
from harness.training.loop import train_bank
from harness.training.lora import Lora
from harness.training.resume import Checkpoints, TrainingState
from harness.training.stopping import Look

EXAMPLES = [
    Example(tuple(range(10 + i, 20 + 3 * i)), (*range(100 + i, 101 + 3 * i), 2), aim)
    for i, aim in enumerate(["refuse", "retain"] * 4)
]
CONFIG = TrainingConfig(
    epochs=3, batch_size=3, warmup_steps=2, objectives={"refuse": 1.0, "retain_kl": 0.5}, learning_rate=2e-3
)  # nine steps, three an epoch


class BrokenOffError(Exception):
    """Stands for whatever ends a process."""


def new_bank(loaded, lora=None):
    torch.manual_seed(0)
    return ExpertBank(loaded.moe, [Expert(1, 0), Expert(1, 3), Expert(2, 5)], lora=lora)


def break_off_after(steps: int):
    left = [steps]

    def on_step(done: int) -> None:
        left[0] -= done
        if left[0] <= 0:
            raise BrokenOffError

    return on_step


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("broken", range(1, 9))
def test_broken_off_after_any_step_it_ends_the_same(tiny_loaded, tmp_path, broken, every):
    loaded = tiny_loaded("qwen3_moe")
    whole, parts = new_bank(loaded), new_bank(loaded)
    expected = train_bank(loaded, whole, EXAMPLES, CONFIG, seed=0)
    checkpoints = Checkpoints(tmp_path / "checkpoint", "key", every)
    with pytest.raises(BrokenOffError):
        train_bank(loaded, parts, EXAMPLES, CONFIG, 0, break_off_after(broken), checkpoints=checkpoints)
    steps: list[int] = []
    parts = new_bank(loaded)
    found = train_bank(loaded, parts, EXAMPLES, CONFIG, 0, steps.append, checkpoints=checkpoints)
    assert found == expected
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    assert steps == [broken // every * every] + [1] * (9 - broken // every * every)


def test_factors_and_dormant_experts_go_on_too(tiny_loaded, tmp_path):
    loaded, lora = tiny_loaded("mixtral"), Lora(rank=2, alpha=4.0)
    whole, parts = new_bank(loaded, lora), new_bank(loaded, lora)
    expected = train_bank(loaded, whole, EXAMPLES, CONFIG, seed=0)
    checkpoints = Checkpoints(tmp_path / "checkpoint", "key", 1)
    for broken in (2, 4):  # broken off twice
        with pytest.raises(BrokenOffError):
            train_bank(loaded, parts, EXAMPLES, CONFIG, 0, break_off_after(broken), checkpoints=checkpoints)
    assert train_bank(loaded, parts, EXAMPLES, CONFIG, 0, checkpoints=checkpoints) == expected
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


@pytest.mark.parametrize("broken", [1, 3, 4, 5])
def test_early_stopping_goes_on_with_its_best_state(tiny_loaded, tmp_path, broken):
    """Looks after steps 2, 4, 6 and 8: the second is the best, and two more without a better one end it."""
    loaded = tiny_loaded("qwen3_moe")
    config = CONFIG.model_copy(update={"early_stopping": EarlyStoppingConfig(every=2, patience=2)})
    scores = {2: 0.3, 4: 0.9, 6: 0.5, 8: 0.9}

    def trained(bank, **more):
        states: dict[int, list[torch.Tensor]] = {}

        def evaluate() -> Look:
            # The step is told by the values, which the whole training has looked at before.
            values = [parameter.detach().clone() for parameter in bank.parameters()]
            step = next((s for s, v in known.items() if all(map(torch.equal, v, values))), 2 * len(known) + 2)
            states[step] = known[step] = values
            return Look(scores[step], None)

        return train_bank(loaded, bank, EXAMPLES, config, 0, evaluate=evaluate, **more), states

    known: dict[int, list[torch.Tensor]] = {}
    whole = new_bank(loaded)
    expected, states = trained(whole)
    assert len(expected.log) == 8
    assert all(map(torch.equal, whole.parameters(), states[4]))
    assert [row["step"] for row in expected.log if "held_out" in row] == [2, 4, 6, 8]

    checkpoints, parts = Checkpoints(tmp_path / "checkpoint", "key", 1), new_bank(loaded)
    with pytest.raises(BrokenOffError):
        trained(parts, on_step=break_off_after(broken), checkpoints=checkpoints)
    parts = new_bank(loaded)
    found, _ = trained(parts, checkpoints=checkpoints)
    assert found == expected
    assert all(map(torch.equal, whole.parameters(), parts.parameters()))


def test_what_was_noted_of_gradients_is_kept(tiny_loaded, tmp_path):
    """An expert that tokens reached before the break only is not reported as dormant."""
    loaded, checkpoints = tiny_loaded("qwen3_moe"), Checkpoints(tmp_path / "checkpoint", "key", 1)

    def state(fill: float) -> TrainingState:
        bank = new_bank(loaded)
        return TrainingState(
            bank, torch.optim.AdamW(bank.parameters()), {1: torch.full((2,), fill), 2: torch.full((1,), fill)}
        )

    before, after = state(0.5), state(0.0)
    checkpoints.write(before)
    checkpoints.restore(after)
    assert [values.tolist() for values in after.gradients.values()] == [[0.5, 0.5], [0.5]]


def test_a_checkpoint_of_another_training_is_not_read(tiny_loaded, tmp_path):
    loaded, steps = tiny_loaded("qwen3_moe"), []
    first, other = Checkpoints(tmp_path / "c", "one", 1), Checkpoints(tmp_path / "c", "other", 1)
    with pytest.raises(BrokenOffError):
        train_bank(loaded, new_bank(loaded), EXAMPLES, CONFIG, 0, break_off_after(4), checkpoints=first)
    train_bank(loaded, new_bank(loaded), EXAMPLES, CONFIG, 0, steps.append, checkpoints=other)
    assert steps[:2] == [0, 1]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_is_named_and_the_training_begins_anew(
    tiny_loaded, tmp_path, capsys, content
):
    loaded, path, steps = tiny_loaded("qwen3_moe"), tmp_path / "checkpoint", []
    path.write_bytes(content)
    checkpoints = Checkpoints(path, "key", 1)
    train_bank(loaded, new_bank(loaded), EXAMPLES, CONFIG, 0, steps.append, checkpoints=checkpoints)
    assert steps[:2] == [0, 1]
    assert f"{path} is not what the run wrote: training anew" in capsys.readouterr().err


def test_a_checkpoint_of_which_one_bit_was_changed_is_not_continued(tiny_loaded, tmp_path, capsys):
    loaded, path, steps = tiny_loaded("qwen3_moe"), tmp_path / "checkpoint", []
    checkpoints = Checkpoints(path, "key", 1)
    with pytest.raises(BrokenOffError):
        train_bank(loaded, new_bank(loaded), EXAMPLES, CONFIG, 0, break_off_after(4), checkpoints=checkpoints)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    train_bank(loaded, new_bank(loaded), EXAMPLES, CONFIG, 0, steps.append, checkpoints=checkpoints)
    assert steps[:2] == [0, 1]
    assert "is not what the run wrote" in capsys.readouterr().err


def test_without_a_number_of_steps_one_is_written_each_minute(tiny_loaded, tmp_path, monkeypatch):
    loaded, path = tiny_loaded("qwen3_moe"), tmp_path / "checkpoint"
    now = [0.0]
    monkeypatch.setattr("harness.training.resume.time.monotonic", lambda: now[0])
    written = []

    def on_step(steps: int) -> None:
        written.append(path.is_file())
        now[0] += 25.0

    checkpoints = Checkpoints(path, "key")
    train_bank(loaded, new_bank(loaded), EXAMPLES, CONFIG, 0, on_step, checkpoints=checkpoints)
    # Told of 0 steps at first; a minute is over when the third optimizer step begins.
    assert written == [False, False, False] + [True] * 7


def test_a_loss_that_turns_nan_keeps_the_last_checkpoint(tiny_loaded, tmp_path):
    loaded, path = tiny_loaded("qwen3_moe"), tmp_path / "checkpoint"
    head = loaded.moe.model.lm_head.weight
    kept = head.clone()

    def on_step(steps: int) -> None:
        if path.is_file() and steps:
            head.fill_(torch.nan)

    checkpoints = Checkpoints(path, "key", 2)
    with pytest.raises(HarnessError, match="the loss of step 3 is nan"):
        train_bank(loaded, new_bank(loaded), EXAMPLES, CONFIG, 0, on_step, checkpoints=checkpoints)
    head.copy_(kept)
    steps: list[int] = []
    train_bank(loaded, new_bank(loaded), EXAMPLES, CONFIG, 0, steps.append, checkpoints=checkpoints)
    assert steps[0] == 2
