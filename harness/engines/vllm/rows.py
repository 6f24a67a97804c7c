"""From vLLM's steps to the routing of answers: chunks are put in order, and repeated positions count once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.base.errors import HarnessError
from harness.routing.capture import Captured, phase_masks

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from harness.engines.vllm.worker import Step


# vLLM's id of a request: the answer's number among several, our number, a unique suffix.
_REQUEST = re.compile(r"(?:(\d+)_)?(\d+)(?:-[0-9a-f]+)?")


class RequestRows(NamedTuple):
    """The routing of one request, one row per position.

    Attributes:
        experts: int16 [T, L, k].
        weights: float32 [T, L, k], the gate weights.
        logits: float32 [T, L, E], or None where they are not kept.
    """

    experts: npt.NDArray[np.int16]
    weights: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32] | None

    def first(self, n: int) -> RequestRows:
        """Return the first n rows."""
        return RequestRows(
            self.experts[:n], self.weights[:n], None if self.logits is None else self.logits[:n]
        )


def renamed(steps: Sequence[Step]) -> list[Step]:
    """Call requests by their number and answer, as in `3/0`, instead of vLLM's own ids.

    Raises:
        HarnessError: an id has another form than those of the vLLM that was tested.
    """
    names: dict[str, str] = {}
    for own in {request for step in steps for request in step.requests}:
        match = _REQUEST.fullmatch(own)
        if match is None:
            raise HarnessError(f"vLLM calls a request '{own}': capture does not know this form")
        names[own] = f"{match[2]}/{match[1] or 0}"
    return [step._replace(requests=[names[own] for own in step.requests]) for step in steps]


def request_rows(steps: Sequence[Step], routed: Mapping[str, int]) -> dict[str, RequestRows]:
    """Return each request's routing, one row per position.

    A request that was preempted is computed again from its first token; the later rows count, since the rest
    of the answer was computed from them.

    Args:
        steps: kept by the workers, in order.
        routed: how many tokens of each request went through the model.

    Raises:
        HarnessError: a position has no row, or a row belongs to no known request or lies beyond its end.
    """
    places = {name: place for place, name in enumerate(routed)}
    strange = {name for step in steps for name in step.requests} - places.keys()
    if strange:
        raise HarnessError(f"vLLM routed tokens of a request that was not made: {min(strange)}")
    totals = np.fromiter(routed.values(), dtype=np.int64, count=len(routed))
    ends = np.cumsum(totals)
    # Where each position's last row is among all rows, -1 for none.
    last = np.full(int(totals.sum()), -1, dtype=np.int64)
    seen = 0
    for step in steps:
        place = np.repeat([places[name] for name in step.requests], step.lengths)
        rows = np.arange(len(place))
        position = rows + np.repeat(step.starts - (np.cumsum(step.lengths) - step.lengths), step.lengths)
        # vLLM may run one token beyond the last one that counts.
        counts = position < totals[place]
        for late in np.flatnonzero(position > totals[place])[:1]:
            name = list(routed)[place[late]]
            raise HarnessError(
                f"vLLM routed position {position[late]} of request {name}, expected at most {routed[name]} (prompt + "
                "answer - 1): capture cannot be trusted"
            )
        last[(ends[place] - totals[place] + position)[counts]] = seen + rows[counts]
        seen += len(rows)
    missing = [int((part < 0).sum()) for part in np.split(last, ends[:-1])]
    for name, lost in zip(routed, missing, strict=True):
        if lost:
            raise HarnessError(
                f"vLLM kept the routing of {routed[name] - lost} of {routed[name]} tokens of request {name}: "
                "capture cannot be trusted"
            )
    experts = np.concatenate([step.experts for step in steps])[last]
    weights = np.concatenate([step.weights for step in steps])[last]
    kept = [step.logits for step in steps if step.logits is not None]
    logits = np.concatenate(kept)[last] if kept else None
    return {
        name: RequestRows(
            experts[end - n : end], weights[end - n : end], None if logits is None else logits[end - n : end]
        )
        for (name, n), end in zip(routed.items(), ends.tolist(), strict=True)
    }


def captured_batch(
    steps: Sequence[Step],
    requests: Sequence[str],
    prompts: Sequence[list[int]],
    whole: Sequence[list[int]],
    generated: Sequence[list[int]],
    starts: Sequence[int],
) -> tuple[Captured, torch.Tensor, torch.Tensor]:
    """Return a batch's routing as the transformers engine captures it.

    Args:
        steps: kept by the workers, in order.
        requests: the name of each answer's request.
        prompts: the tokens of each answer's prompt.
        whole: the tokens that vLLM generated for each answer, its end token included.
        generated: those of them that are kept.
        starts: how many of these come before the answer's first.

    Returns:
        The routing, the phases of its positions (bool [phases, B, T]), and the tokens there ([B, T]).

    Raises:
        HarnessError: the routing cannot be trusted.
    """
    import torch

    # The last token of an answer was sampled, never routed.
    routed = [prompt + answer[:-1] for prompt, answer in zip(prompts, generated, strict=True)]
    seen = {
        name: len(prompt) + len(answer) - 1
        for name, prompt, answer in zip(requests, prompts, whole, strict=True)
    }
    rows = request_rows(steps, seen)
    kept = [rows[name].first(len(ids)) for name, ids in zip(requests, routed, strict=True)]
    captured, mask = padded(kept, [len(prompt) for prompt in prompts])
    masks = phase_masks(mask, torch.tensor([len(answer) for answer in generated]), torch.tensor(list(starts)))
    token_ids = torch.zeros(masks.shape[1:], dtype=torch.long)
    token_ids[masks.any(dim=0)] = torch.tensor([token for ids in routed for token in ids])
    return captured, masks, token_ids


def padded(answers: Sequence[RequestRows], prompt_tokens: Sequence[int]) -> tuple[Captured, torch.Tensor]:
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
