"""The training loop: AdamW on the bank's parameters, cross-entropy on answer tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from harness.errors import BadInputError, HarnessError
from harness.training.bank import ExpertBank
from harness.training.cut import checkpointed_from
from harness.training.distributed import Ranks
from harness.training.examples import Batch, Example, batch_order, check_lengths, collate

if TYPE_CHECKING:
    from harness.config import TrainingConfig
    from harness.models.load import LoadedModel
    from harness.models.moe import Expert

# Logits are turned to float32 for this many tokens at a time, so that the vocabulary never dominates memory.
_LOSS_CHUNK = 1024


@dataclass(frozen=True)
class TrainingResult:
    """What a training did.

    Attributes:
        log: one row an optimizer step: step, epoch, loss, learning_rate, gradient_norm, answer_tokens.
        without_gradient: selected experts that no training token was routed to.
    """

    log: list[dict[str, float]]
    without_gradient: list[Expert]


def count_steps(examples: int, config: TrainingConfig) -> int:
    """Return the number of optimizer steps that a training takes."""
    batches = math.ceil(examples / config.batch_size)
    steps = config.epochs * math.ceil(batches / config.gradient_accumulation_steps)
    return min(steps, config.max_steps) if config.max_steps else steps


def train_bank(
    loaded: LoadedModel,
    bank: ExpertBank,
    examples: Sequence[Example],
    config: TrainingConfig,
    seed: int,
    on_step: Callable[[int], None] = lambda steps: None,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
) -> TrainingResult:
    """Train a bank in place.

    Args:
        loaded: the model, whose own weights stay as they are.
        bank: the experts to train.
        examples: what to learn.
        config: epochs, batch size, learning rate and so on.
        seed: fixes the order of the examples.
        on_step: called after each optimizer step.
        ranks: the processes that train together; each takes its share of every batch.

    Raises:
        BadInputError: no examples, or one longer than the context.
        HarnessError: the loss is not finite, no gradient reached the bank, or memory ran out.
    """
    if not examples:
        raise BadInputError("nothing to train on: the train splits are empty")
    check_lengths(
        examples, getattr(loaded.moe.model.config.get_text_config(), "max_position_embeddings", None)
    )
    parameters = bank.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    total = count_steps(len(examples), config)
    log: list[dict[str, float]] = []
    seen = {index: torch.zeros_like(layer.gradient_sizes()) for index, layer in bank.layers.items()}
    try:
        with bank.installed(), _recomputed(bank, config):
            for epoch, group in _groups(loaded, examples, config, seed, ranks):
                step = len(log)
                rate = config.learning_rate * _schedule(step, total, config.warmup_steps)
                for settings in optimizer.param_groups:
                    settings["lr"] = rate
                loss, tokens = _accumulate(loaded, group, step, ranks)
                ranks.sum_gradients(parameters)
                norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm))
                if not math.isfinite(norm):
                    raise HarnessError(
                        f"the gradient of step {step + 1} is not finite: lower training.learning_rate"
                    )
                _note_gradients(bank, seen)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                log.append(
                    {
                        "step": step + 1,
                        "epoch": epoch + 1,
                        "loss": loss,
                        "learning_rate": rate,
                        "gradient_norm": norm,
                        "answer_tokens": tokens,
                    }
                )
                on_step(1)
                if len(log) == total:
                    break
    except torch.OutOfMemoryError as error:
        raise HarnessError(
            "out of memory while training: lower training.batch_size (and raise "
            "training.gradient_accumulation_steps) or set training.gradient_checkpointing=true"
        ) from error
    return TrainingResult(log, _without_gradient(bank, seen))


def answer_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Return the summed cross-entropy of a batch's answer tokens, a scalar.

    No labels are handed to the model, so a router's auxiliary loss never joins in.
    """
    logits = answer_logits(model, batch)
    pieces = zip(logits.split(_LOSS_CHUNK), batch.targets.split(_LOSS_CHUNK), strict=True)
    return torch.stack([functional.cross_entropy(a.float(), b, reduction="sum") for a, b in pieces]).sum()


def answer_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Return the logits that predict a batch's answer tokens, [A, V].

    The hidden states are cut down where they enter the output head, so the family's own scaling or capping of
    logits still applies, and the vocabulary is only paid for where there is a loss.
    """

    def keep_predictors(head: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        return (hidden.reshape(-1, hidden.shape[-1])[batch.predictors].unsqueeze(0), *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep_predictors)
    try:
        output = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        )
    finally:
        handle.remove()
    logits: torch.Tensor = output.logits[0]
    return logits


def _recomputed(bank: ExpertBank, config: TrainingConfig) -> AbstractContextManager[None]:
    return checkpointed_from(bank.moe, min(bank.layers)) if config.gradient_checkpointing else nullcontext()


def _groups(
    loaded: LoadedModel, examples: Sequence[Example], config: TrainingConfig, seed: int, ranks: Ranks
) -> Iterator[tuple[int, list[Batch]]]:
    """Yield the batches of each optimizer step, with the epoch's number."""
    pad, accumulate = int(loaded.tokenizer.pad_token_id), config.gradient_accumulation_steps
    for epoch in range(config.epochs):
        order = batch_order(examples, config.batch_size, seed, epoch)
        for at in range(0, len(order), accumulate):
            rows = [part for batch in order[at : at + accumulate] for part in _by_aim(examples, batch)]
            shares = [ranks.share([examples[i] for i in part]) for part in rows]
            yield epoch, [collate(share, pad, loaded.device) for share in shares]


def _by_aim(examples: Sequence[Example], batch: Sequence[int]) -> list[list[int]]:
    """Take refusals and benign answers through the model apart: padded together, short ones cost as much as long."""
    parts: dict[str, list[int]] = {}
    for i in batch:
        parts.setdefault(examples[i].aim, []).append(i)
    return list(parts.values())


def _accumulate(loaded: LoadedModel, group: Sequence[Batch], step: int, ranks: Ranks) -> tuple[float, int]:
    """Backpropagate the batches of one step; the loss is per answer token of them all together, on all ranks."""
    tokens = int(ranks.total(sum(len(batch.targets) for batch in group), loaded.device))
    total = 0.0
    for batch in group:
        loss = answer_loss(loaded.moe.model, batch) / tokens
        # On all ranks before any looks at it: one that gave up alone would leave the others waiting.
        value = ranks.total(float(loss.detach()), loaded.device)
        if not math.isfinite(value):
            raise HarnessError(f"the loss of step {step + 1} is {value}: lower training.learning_rate")
        if not loss.requires_grad:
            raise HarnessError(
                "the loss does not depend on the selected experts: no training token reaches them"
            )
        loss.backward()
        total += value
    return total, tokens


def _schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then cosine decay to a tenth."""
    warmup = min(warmup, total // 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    return 0.55 + 0.45 * math.cos(math.pi * done)


def _note_gradients(bank: ExpertBank, seen: dict[int, torch.Tensor]) -> None:
    for index, layer in bank.layers.items():
        seen[index] += layer.gradient_sizes()


def _without_gradient(bank: ExpertBank, seen: dict[int, torch.Tensor]) -> list[Expert]:
    from harness.models.moe import Expert

    missing = [
        Expert(index, expert)
        for index, layer in bank.layers.items()
        for expert, total in zip(layer.experts, seen[index].tolist(), strict=True)
        if total == 0.0
    ]
    if len(missing) == sum(len(layer.experts) for layer in bank.layers.values()):
        raise HarnessError(
            "no selected expert received a gradient: no training token was routed to any of them"
        )
    return missing
