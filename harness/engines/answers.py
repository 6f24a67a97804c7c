"""From the tokens of a batch, and the routing captured with them, to its answers: the same for every engine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from harness.data.answer import Answer, answer_id
from harness.engines.base import BatchResult, Sampling
from harness.routing.capture import Captured, count, routed_tokens

if TYPE_CHECKING:
    import torch

    from harness.data.prompts import Prompt
    from harness.models.moe import MoEModel
    from harness.models.thoughts import Reader
    from harness.routing.counts import Record


def make_answers(
    batch: Sequence[Prompt],
    sampling: Sampling | None,
    prompt_tokens: Sequence[int],
    generated: Sequence[Sequence[int]],
    ends: Collection[int],
    reader: Reader,
) -> tuple[list[Answer], list[int]]:
    """Turn the tokens of a batch's answers into answers.

    Args:
        batch: the prompts.
        sampling: numbers the answers of each prompt, which follow one another; None for one greedy answer.
        prompt_tokens: the length of each answer's rendered prompt.
        generated: the tokens of each answer, its end token included.
        ends: tokens that end an answer.
        reader: tells reasoning from answer.

    Returns:
        The answers, and how many generated tokens come before each one's first: all of them where it never began.
    """
    if sampling is None:
        asked: list[tuple[Prompt, int | None]] = [(prompt, None) for prompt in batch]
    else:
        asked = [(prompt, number) for prompt in batch for number in sampling.numbers]
    answers, starts = [], []
    for (prompt, number), row, n in zip(asked, generated, prompt_tokens, strict=True):
        reading = reader.read(row)
        at = len(row) if reading.at is None else reading.at
        answer = Answer(
            id=answer_id(prompt.id, number),
            prompt=prompt.text,
            response=reading.response,
            finish_reason="stop" if row[-1] in ends else "length",
            prompt_tokens=int(n),
            generated_tokens=len(row),
            tokens=tuple(row[at:]),
            reasoning=reading.reasoning,
            reasoning_tokens=None if reading.reasoning is None else at,
            number=number,
            messages=prompt.turns,
        )
        answers.append(answer)
        starts.append(at)
    return answers, starts


def with_routing(
    answers: list[Answer],
    captured: Captured,
    masks: torch.Tensor,
    token_ids: torch.Tensor,
    moe: MoEModel,
    capture: Record,
) -> BatchResult:
    """Return a batch's answers with what was captured, counted.

    Args:
        answers: of the batch, B of them.
        captured: the routing.
        masks: which positions belong to which phase, bool [phases, B, T].
        token_ids: the token at each position, [B, T].
        moe: the model.
        capture: how much to keep.

    Raises:
        HarnessError: the routing cannot be trusted.
    """
    ids = [answer.id for answer in answers]
    counts = count(captured, masks, moe, ids)
    tokens = None if capture == "counts" else routed_tokens(captured, masks, token_ids, ids)
    return BatchResult(answers, counts, tokens)
