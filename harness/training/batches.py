"""The batches that each optimizer step reads, apart by aim, in an order that the seed fixes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.training.distributed import Ranks
from harness.training.examples import Aim, Batch, Example, batch_order, collate

if TYPE_CHECKING:
    from harness.config import TrainingConfig
    from harness.models.load import LoadedModel


class Part(NamedTuple):
    """Examples of one aim that go through the model together."""

    aim: Aim
    batch: Batch
    """The share of this process."""
    tokens: int
    """Their answer tokens, on all processes; those of rejected answers do not count."""


def count_steps(examples: int, config: TrainingConfig) -> int:
    """Return the number of optimizer steps that a training takes, unless it is stopped early."""
    steps = config.epochs * steps_of_an_epoch(examples, config)
    return min(steps, config.max_steps) if config.max_steps else steps


def steps_of_an_epoch(examples: int, config: TrainingConfig) -> int:
    """Return the number of optimizer steps that one pass over the examples takes."""
    return math.ceil(math.ceil(examples / config.batch_size) / config.gradient_accumulation_steps)


def steps_between(
    begin: int,
    end: int,
    loaded: LoadedModel,
    examples: Sequence[Example],
    config: TrainingConfig,
    seed: int,
    ranks: Ranks,
) -> Iterator[tuple[int, list[Part]]]:
    """Yield the epoch and the parts of optimizer steps, counted from 0, `end` not included."""
    accumulate = config.gradient_accumulation_steps
    order: list[list[int]] = []
    for step in range(begin, end):
        epoch, place = divmod(step, steps_of_an_epoch(len(examples), config))
        if place == 0 or not order:
            order = batch_order(examples, config.batch_size, seed, epoch)
        batches = order[place * accumulate : (place + 1) * accumulate]
        yield (
            epoch,
            [part for batch in batches for part in _parts([examples[i] for i in batch], loaded, ranks)],
        )


def _parts(examples: Sequence[Example], loaded: LoadedModel, ranks: Ranks) -> Iterator[Part]:
    """Take the aims through the model apart: padded together, short answers cost as much as long."""
    for aim in dict.fromkeys(example.aim for example in examples):
        same = [example for example in examples if example.aim == aim]
        # The answers to learn, all of them, and then the rejected ones.
        sides = zip(*(example.sides() for example in ranks.share(same)), strict=True)
        rows = [example for side in sides for example in side]
        batch = collate(rows, int(loaded.tokenizer.pad_token_id), loaded.device)
        yield Part(aim, batch, sum(len(example.answer) for example in same))
