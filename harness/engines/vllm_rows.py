"""From vLLM's steps to the routing of answers: chunks are put in order, and what was computed twice counts once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.engines.vllm_worker import StepRows
from harness.errors import HarnessError
from harness.routing.capture import Captured

if TYPE_CHECKING:
    import torch


def request_rows(steps: Sequence[StepRows], routed: Mapping[str, int]) -> dict[str, StepRows]:
    """Return each request's routing, one row a position.

    A request that was preempted is computed again from its first token; then the later rows stand, since the rest
    of the answer was computed from them.

    Args:
        steps: what the workers kept, in order.
        routed: how many tokens of each request went through the model.

    Raises:
        HarnessError: a position has no row, or rows are of no request that was asked for.
    """
    by_request: dict[str, list[StepRows]] = defaultdict(list)
    for step in steps:
        by_request[step.request].append(step)
    strange = by_request.keys() - routed.keys()
    if strange:
        raise HarnessError(f"vLLM routed tokens of a request that was not made: {min(strange)}")
    return {request: _whole(request, by_request[request], total) for request, total in routed.items()}


def _whole(request: str, steps: Sequence[StepRows], total: int) -> StepRows:
    # Where each position's last row is among all rows of the request, -1 for none.
    last = np.full(total, -1, dtype=np.int64)
    at = 0
    for step in steps:
        # vLLM may run one token beyond the last one that counts.
        n = max(0, min(len(step.experts), total - step.start))
        last[step.start : step.start + n] = np.arange(at, at + n)
        at += len(step.experts)
    missing = int((last < 0).sum())
    if missing:
        raise HarnessError(
            f"vLLM kept the routing of {total - missing} of {total} tokens of request {request}: "
            "capture cannot be trusted"
        )
    logits = [step.logits for step in steps if step.logits is not None]
    return StepRows(
        request,
        0,
        np.concatenate([step.experts for step in steps])[last],
        np.concatenate([step.weights for step in steps])[last],
        np.concatenate(logits)[last] if logits else None,
    )


def padded(answers: Sequence[StepRows], prompt_tokens: Sequence[int]) -> tuple[Captured, torch.Tensor]:
    """Arrange answers as a left-padded batch, as the transformers engine captures it.

    Args:
        answers: from `request_rows`.
        prompt_tokens: how many rows of each are its prompt's.

    Returns:
        The routing, and the attention mask of the prompts, [B, P].

    Raises:
        HarnessError: every expert is number 0, which is what a kernel leaves that never wrote its choice.
    """
    import torch

    width = max(prompt_tokens)
    shifts = [width - n for n in prompt_tokens]
    columns = max(shift + len(rows.experts) for shift, rows in zip(shifts, answers, strict=True))
    if all(not rows.experts.any() for rows in answers):
        raise HarnessError("vLLM reports expert 0 for every token of every layer: capture cannot be trusted")

    def laid_out(values: Sequence[np.ndarray]) -> torch.Tensor:  # B of [T, L, X] to [L, B, T, X]
        batch = np.zeros((len(values), columns, *values[0].shape[1:]), dtype=values[0].dtype)
        for row, shift, value in zip(batch, shifts, values, strict=True):
            row[shift : shift + len(value)] = value
        return torch.from_numpy(batch).permute(2, 0, 1, 3)

    logits = [rows.logits for rows in answers if rows.logits is not None]
    mask = torch.zeros(len(answers), width, dtype=torch.long)
    for row, shift in zip(mask, shifts, strict=True):
        row[shift:] = 1
    captured = Captured(
        laid_out([rows.experts for rows in answers]),
        laid_out([rows.weights for rows in answers]),
        laid_out(logits) if logits else None,
    )
    return captured, mask
