"""The training loop: AdamW on the bank's parameters, weighted objectives on answer tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.base.errors import BadInputError, HarnessError
from harness.models.moe import Expert
from harness.training.adapter_bank import AdapterBank
from harness.training.bank import ExpertBank
from harness.training.batches import Part, count_steps, steps_between
from harness.training.checkpointing import checkpointed_from
from harness.training.distributed import Ranks
from harness.training.examples import Batch, Example, check_lengths
from harness.training.objectives import OBJECTIVES, Reading, aims_of, cross_entropy
from harness.training.resume import Checkpoints, TrainingState
from harness.training.stopping import Evaluate, best_step, looks_since_best

if TYPE_CHECKING:
    from harness.config import TrainingConfig
    from harness.models.load import LoadedModel


@dataclass(frozen=True)
class TrainingResult:
    """What a training did.

    Attributes:
        log: one row per optimizer step: step, epoch, loss, losses (each objective's own, for each answer token that it
            reads), learning_rate, gradient_norm, answer_tokens, and held_out where the step was looked at.
        without_gradient: selected experts that no training token was routed to.
    """

    log: list[dict[str, Any]]
    without_gradient: list[Expert]


def train_bank(
    loaded: LoadedModel,
    bank: ExpertBank | AdapterBank,
    examples: Sequence[Example],
    config: TrainingConfig,
    seed: int,
    on_step: Callable[[int], None] = lambda steps: None,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    checkpoints: Checkpoints | None = None,
    evaluate: Evaluate | None = None,
    on_row: Callable[[Mapping[str, Any]], None] = lambda row: None,
) -> TrainingResult:
    """Train a bank in place.

    Args:
        loaded: the model, whose own weights stay as they are.
        bank: the experts to train, or the adapter.
        examples: what to learn.
        config: objectives, epochs, batch size, learning rate and so on.
        seed: fixes the order of the examples.
        on_step: called with a number of optimizer steps that are done.
        ranks: the processes that train together; each takes its share of every batch.
        checkpoints: where the training is kept while it runs, and resumes from.
        evaluate: looks at held-out prompts, with the bank not installed; the bank then ends with its best values.
        on_row: called with each new row of the log, and with what was found on held-out prompts after a step.

    Raises:
        BadInputError: no examples, one that no objective reads or that is longer than the context, or a checkpoint
            that cannot be read.
        HarnessError: the loss is not finite, no gradient reached the bank, or memory ran out.
    """
    _check(loaded, examples, config)
    optimizer = torch.optim.AdamW(
        bank.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    gradients = {index: torch.zeros_like(layer.gradient_sizes()) for index, layer in bank.layers.items()}
    state = TrainingState(bank, optimizer, gradients)
    if checkpoints is not None:
        checkpoints.restore(state)
        on_step(state.step)
    total = count_steps(len(examples), config)
    every = (config.early_stopping.every if evaluate else None) or total
    # An adapter is in all layers.
    lowest = min(bank.layers, default=0)
    while True:
        due = state.step and (state.step % every == 0 or state.step == total)
        if evaluate is not None and due:
            look = evaluate().row()
            state.log[-1] |= look
            on_row({"step": state.step, **look})
            if best_step(state.log) == state.step:
                state.best = {name: value.clone() for name, value in bank.state().items()}
        if state.step == total or looks_since_best(state.log) >= config.early_stopping.patience:
            break
        end = min(total, (state.step // every + 1) * every)
        steps = steps_between(state.step, end, loaded, examples, config, seed, ranks)
        recomputed = checkpointed_from(bank.moe, lowest) if config.gradient_checkpointing else nullcontext()
        with _memory_advice(config), bank.installed(), recomputed:
            for epoch, parts in steps:
                step = state.step
                rate = config.learning_rate * _schedule(step, total, config.warmup_steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                row = {"step": step + 1, "epoch": epoch + 1, "learning_rate": rate}
                row |= _accumulate(loaded, bank, parts, config, ranks, step)
                for index, layer in bank.layers.items():
                    gradients[index] += layer.gradient_sizes()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                state.log.append(row)
                if checkpoints is not None and ranks.rank == 0:
                    checkpoints.after_step(state)
                on_row(row)
                on_step(1)
    if evaluate is not None:
        bank.load_state(state.best)
    return TrainingResult(state.log, _without_gradient(bank, gradients))


def _check(loaded: LoadedModel, examples: Sequence[Example], config: TrainingConfig) -> None:
    if not examples:
        raise BadInputError("nothing to train on: the train splits are empty")
    unread = {example.aim for example in examples} - set(aims_of(config.objectives))
    if unread:
        raise BadInputError(f"training.objectives: none of them reads the examples of aim '{min(unread)}'")
    check_lengths(
        examples, getattr(loaded.moe.model.config.get_text_config(), "max_position_embeddings", None)
    )


@contextmanager
def _memory_advice(config: TrainingConfig) -> Iterator[None]:
    """Say which settings need less memory where it runs out inside the block."""
    try:
        yield
    except RuntimeError as error:
        # On a CPU torch raises no class of its own.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        knobs = ["lower training.batch_size (and raise training.gradient_accumulation_steps)"]
        knobs += [] if config.gradient_checkpointing else ["set training.gradient_checkpointing=true"]
        knobs += [] if config.lora_rank else ["set training.lora_rank"]
        raise HarnessError(f"out of memory while training: {' or '.join(knobs)}") from error


def answer_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Return the summed cross-entropy of a batch's answer tokens, a scalar with its gradient."""
    return cross_entropy(Reading(model, batch))


def _accumulate(
    loaded: LoadedModel,
    bank: ExpertBank | AdapterBank,
    parts: Sequence[Part],
    config: TrainingConfig,
    ranks: Ranks,
    step: int,
) -> dict[str, Any]:
    """Backpropagate what one step reads, on all ranks; returns its figures for the log.

    The device is waited for once, at the end.
    """
    tokens = sum(part.tokens for part in parts)
    names: list[str] = []
    values: list[torch.Tensor] = []
    for part in parts:
        reading = Reading(loaded.moe.model, part.batch, bank, config.preference_beta)
        terms = {
            name: OBJECTIVES.get(name).loss(reading, weight, tokens)
            for name, weight in config.objectives.items()
            if OBJECTIVES.get(name).aim == part.aim
        }
        loss = torch.stack([*terms.values()]).sum()
        if not loss.requires_grad:
            raise HarnessError(
                "the loss does not depend on the selected experts: no training token reaches them"
            )
        loss.backward()
        names += terms
        values += [term.detach() for term in terms.values()]
    ranks.sum_gradients(bank.parameters())
    norm = torch.nn.utils.clip_grad_norm_(bank.parameters(), config.max_gradient_norm)
    # On all ranks before any looks at it: one that gave up alone would leave the others waiting.
    *losses, size = torch.cat([ranks.total(torch.stack(values)), norm.reshape(1)]).tolist()
    if not math.isfinite(sum(losses)):
        raise HarnessError(f"the loss of step {step + 1} is {sum(losses)}: lower training.learning_rate")
    if not math.isfinite(size):
        raise HarnessError(f"the gradient of step {step + 1} is not finite: lower training.learning_rate")
    by_objective = {}
    for name, weight in config.objectives.items():
        total = sum(loss for each, loss in zip(names, losses, strict=True) if each == name)
        read = sum(part.tokens for part in parts if part.aim == OBJECTIVES.get(name).aim)
        if read:
            by_objective[name] = total * tokens / (weight * read)
    return {
        "loss": sum(losses),
        "losses": by_objective,
        "gradient_norm": size,
        "answer_tokens": tokens,
    }


def _schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then cosine decay to a tenth."""
    warmup = min(warmup, total // 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    return 0.55 + 0.45 * math.cos(math.pi * done)


def _without_gradient(bank: ExpertBank | AdapterBank, seen: dict[int, torch.Tensor]) -> list[Expert]:
    missing = [
        Expert(index, expert)
        for index, layer in bank.layers.items()
        for expert, total in zip(layer.experts, seen[index].tolist(), strict=True)
        if total == 0.0
    ]
    if missing and len(missing) == sum(len(layer.experts) for layer in bank.layers.values()):
        raise HarnessError(
            "no selected expert received a gradient: no training token was routed to any of them"
        )
    return missing
