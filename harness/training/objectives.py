"""The loss of a training: objectives by name, weighted and added up.

Every objective reads the examples of one aim and gives a loss for each of their answer tokens. One optimizer step
minimises

    sum over objectives of weight x (its loss, summed over the answer tokens that it reads) / N

where N counts the answer tokens of all examples of the step, each example once, whichever objectives read it. So at
equal weights a token counts the same whatever it is learnt by, and a weight says how many times a token counts. With
`{refuse: 1, retain: 1}` this is the mean cross-entropy of an answer token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from harness.base.errors import BadInputError
from harness.base.registry import Registry
from harness.training.answers import Answers, answers_of
from harness.training.examples import AIMS, Aim

if TYPE_CHECKING:
    from harness.training.adapter_bank import AdapterBank
    from harness.training.bank import ExpertBank
    from harness.training.examples import Batch


class Reading:
    """One batch as the model in training reads it and, where an objective needs it, as the frozen one does.

    Args:
        model: the model.
        batch: the examples.
        bank: the installed bank; without one the model is its own reference.
        beta: how far a preference may lead away from the reference.
    """

    def __init__(
        self, model: Any, batch: Batch, bank: ExpertBank | AdapterBank | None = None, beta: float = 0.1
    ) -> None:
        self.batch = batch
        self.beta = beta
        self._model = model
        self._bank = bank

    @cached_property
    def answers(self) -> Answers:
        """The answers of the model in training; computed once, however many objectives read them."""
        return answers_of(self._model, self.batch)

    @cached_property
    def reference(self) -> Answers:
        """The answers of the frozen model: the same weights with the bank switched off, and no second copy."""
        with torch.no_grad(), self._bank.switched_off() if self._bank else nullcontext():
            return answers_of(self._model, self.batch)


Loss = Callable[[Reading, float, int], torch.Tensor]
"""From a batch, a weight and N to the batch's part of the step's loss, a scalar with its gradient."""


@dataclass(frozen=True)
class Objective:
    """One term of the loss.

    Attributes:
        aim: which examples it reads.
        loss: of a batch of them.
    """

    aim: Aim
    loss: Loss


def cross_entropy(reading: Reading, weight: float = 1.0, tokens: int = 1) -> torch.Tensor:
    """Return the cross-entropy of the answer tokens, summed, times weight / tokens."""
    targets = reading.batch.targets

    def piece(logits: torch.Tensor, part: slice) -> torch.Tensor:
        return functional.cross_entropy(logits, targets[part], reduction="sum")

    return reading.answers.loss(piece, weight, tokens)


def kl_to_frozen(reading: Reading, weight: float = 1.0, tokens: int = 1) -> torch.Tensor:
    """Return KL(frozen || trained) over the vocabulary at each answer token, summed, times weight / tokens.

    In this direction its gradient is cross-entropy's, with the frozen model's whole distribution in the place of the
    token that it chose.
    """
    # Before the model in training keeps its activations.
    reference = reading.reference

    def piece(logits: torch.Tensor, part: slice) -> torch.Tensor:
        frozen = functional.log_softmax(reference.logits(part), dim=-1)
        trained = functional.log_softmax(logits, dim=-1)
        return functional.kl_div(trained, frozen, reduction="sum", log_target=True)

    return reading.answers.loss(piece, weight, tokens)


def preference(reading: Reading, weight: float = 1.0, tokens: int = 1) -> torch.Tensor:
    """Return each pair's -log sigmoid(beta x margin), once for each token of its refusal, times weight / tokens.

    The margin is how much the trained model prefers the refusal to the compliant answer, in nats over the whole
    answers, beyond what the frozen model does. The rows of the batch are all refusals, then all compliant answers.
    """
    batch = reading.batch
    pairs, width = len(batch.input_ids) // 2, batch.input_ids.shape[1]
    row = torch.div(batch.predictors, width, rounding_mode="floor")

    def log_likelihood(logits: torch.Tensor, part: slice) -> torch.Tensor:
        return -functional.cross_entropy(logits, batch.targets[part], reduction="none")

    def by_answer(figures: torch.Tensor) -> torch.Tensor:
        return figures.new_zeros(2 * pairs).index_add_(0, row, figures)

    frozen = by_answer(reading.reference.values(log_likelihood))
    trained = by_answer(reading.answers.values(log_likelihood))
    beyond = trained - frozen
    margin = reading.beta * (beyond[:pairs] - beyond[pairs:])
    length = by_answer(torch.ones_like(row, dtype=margin.dtype))[:pairs]
    value = (-functional.logsigmoid(margin) * length).sum() * weight / tokens
    # The loss is no sum over tokens, but its gradient is: that of each token's log-likelihood times a number for its
    # answer. So the gradient is taken of that sum, and the loss's value put in its place.
    pull = reading.beta * torch.sigmoid(-margin) * length
    of_token = torch.cat([-pull, pull])[row]
    linear = reading.answers.loss(
        lambda logits, part: (of_token[part] * log_likelihood(logits, part)).sum(), weight, tokens
    )
    return linear + (value - linear.detach())


OBJECTIVES: Registry[Objective] = Registry(
    "objective", "harness.objectives", lambda entry: None if isinstance(entry, Objective) else "an Objective"
)
# Supervised fine-tuning on refusals: Bianchi et al. (2024), Safety-Tuned LLaMAs, arXiv:2309.07875.
OBJECTIVES.add("refuse", Objective("refuse", cross_entropy))
# Self-distillation, on the model's own answers: Yang et al. (2024), arXiv:2402.13669.
OBJECTIVES.add("retain", Objective("retain", cross_entropy))
# Distillation from the model before training: Li and Hoiem (2016), Learning without Forgetting, arXiv:1606.09282;
# Hinton et al. (2015), arXiv:1503.02531.
OBJECTIVES.add("retain_kl", Objective("retain", kl_to_frozen))
# Direct preference optimization: Rafailov et al. (2023), arXiv:2305.18290.
OBJECTIVES.add("prefer", Objective("prefer", preference))
# Safety recovery examples: Qi et al. (2024), Safety Alignment Should Be Made More Than Just a Few Tokens Deep,
# arXiv:2406.05946.
OBJECTIVES.add("refuse_continued", Objective("continue", cross_entropy))


def aims_of(objectives: Iterable[str]) -> list[Aim]:
    """Return the aims whose examples some objectives read, in the order of `AIMS`.

    Raises:
        BadInputError: an objective that nobody knows, or none at all.
    """
    read = {OBJECTIVES.get(name).aim for name in objectives}
    if not read:
        raise BadInputError(f"training.objectives names none: expected some of {', '.join(OBJECTIVES)}")
    return [aim for aim in AIMS if aim in read]


def reading(objectives: Iterable[str], aim: Aim) -> list[str]:
    """Return those of some objectives that read the examples of an aim."""
    return [name for name in objectives if OBJECTIVES.get(name).aim == aim]
