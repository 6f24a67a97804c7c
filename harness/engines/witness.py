"""Whether an engine serves the intended weights: its log-probabilities beside those of transformers.

vLLM reads a checkpoint by its own code, and has silently served wrong weights after a reload.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from harness.data.refusals import refusals_for

if TYPE_CHECKING:
    from harness.data.prompts import Prompt
    from harness.engines.in_memory import ModelInMemory
    from harness.interventions.base import Prepared
    from harness.models.chat import ChatTemplate
    from harness.models.load import LoadedModel

# Mean absolute differences that two right implementations stay well below, by dtype.
_TOLERANCE = {"float32": 1e-3}
_TOLERANCE_OF_HALF = 0.1
# Prompts of each kind that show which weights are served.
_PROMPTS = 4


@dataclass(frozen=True)
class Witness:
    """Log-probabilities by transformers for some texts, with the weights that are to be served.

    Attributes:
        texts: token ids.
        log_probs: of each token but the first, given those before it, in nats.
        base: the same of the base model, where other weights are to be served.
        dtype: of the weights.
    """

    texts: list[list[int]]
    log_probs: list[list[float]]
    base: list[list[float]] | None
    dtype: str


@dataclass(frozen=True)
class Agreement:
    """How an engine's log-probabilities compare with a witness's.

    Attributes:
        gap: mean absolute difference, in nats.
        tolerance: the largest gap that is accepted.
        from_base: mean absolute difference of the witness from the base model; None where it is the base model.
        tokens: how many were compared.
    """

    gap: float
    tolerance: float
    from_base: float | None
    tokens: int

    @property
    def holds(self) -> bool:
        """Whether the engine serves what the witness saw."""
        return self.gap <= self.tolerance

    @property
    def would_notice_base(self) -> bool:
        """Whether the base model's weights would have been noticed."""
        return self.from_base is None or self.from_base > 2 * self.tolerance


class Witnesses:
    """Witnesses from the model in memory, as base and as a variant, on a few prompts answered by a refusal.

    Args:
        model: the run's model, which is loaded when a witness is asked for.
        chat: how prompts are rendered.
        prompts: the first harmful and benign ones of these are taken.
        seed: decides which refusals.
        longest: texts of as many tokens are left out.
    """

    def __init__(
        self, model: ModelInMemory, chat: ChatTemplate, prompts: Sequence[Prompt], seed: int, longest: int
    ) -> None:
        self.model = model
        self.chat = chat
        self.prompts = prompts
        self.seed = seed
        self.longest = longest

    def base(self) -> Witness:
        """Return what base must answer; it is computed once."""
        return self._base

    def of(self, made: Prepared) -> Witness:
        """Return what a variant must answer."""
        base, loaded = self._base, self.model.loaded
        with made.intervention.in_memory(loaded.moe, made):
            return Witness(base.texts, log_probs_of(loaded, base.texts), base.log_probs, base.dtype)

    @cached_property
    def _base(self) -> Witness:
        asked = [
            prompt
            for kind in ("harmful", "benign")
            for prompt in [prompt for prompt in self.prompts if prompt.kind == kind][:_PROMPTS]
        ]
        # A refusal behind harmful and benign prompts alike: what variants differ in.
        answers = refusals_for(asked, self.seed)
        prompt_ids = self.chat.tokens([prompt.asked for prompt in asked])
        answer_ids = self.chat.tokenizer(answers, add_special_tokens=False)["input_ids"]
        texts = [[*prompt, *answer] for prompt, answer in zip(prompt_ids, answer_ids, strict=True)]
        texts = [ids for ids in texts if len(ids) < self.longest]
        loaded = self.model.loaded
        dtype = str(next(loaded.moe.model.parameters()).dtype).removeprefix("torch.")
        return Witness(texts, log_probs_of(loaded, texts), None, dtype)


def log_probs_of(loaded: LoadedModel, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return the log-probability of each token but the first, by the model in memory in the state it is in."""
    import torch

    model = loaded.moe.model
    log_probs = []
    with torch.inference_mode():
        # One at a time: there are few, and padding cannot matter.
        for ids in texts:
            tokens = torch.tensor([list(ids)], device=loaded.device)
            logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
            log_probs.append(logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0].tolist())
    return log_probs


def agreement(served: Sequence[Sequence[float]], witness: Witness) -> Agreement:
    """Compare an engine's log-probabilities of the witness's texts with those of transformers."""
    return Agreement(
        gap=_mean_gap(served, witness.log_probs),
        tolerance=_TOLERANCE.get(witness.dtype, _TOLERANCE_OF_HALF),
        from_base=None if witness.base is None else _mean_gap(witness.base, witness.log_probs),
        tokens=sum(map(len, witness.log_probs)),
    )


def _mean_gap(some: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    gaps = [abs(a - b) for x, y in zip(some, others, strict=True) for a, b in zip(x, y, strict=True)]
    # Not a number is no agreement.
    return math.fsum(gaps) / len(gaps) if all(map(math.isfinite, gaps)) else math.inf
