"""Routing token by token, kept on request for length-cut scores, co-activation and token colouring.

Rows are the routed tokens of all prompts, one prompt after another, each with its prompt tokens first and then its
answer tokens (without the last sampled one, which is never routed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.base.errors import BadInputError, HarnessError

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from harness.routing.counts import RoutingCounts


# Farther from an answer than any window reaches.
_FAR = 10**6


class TokenRouting(NamedTuple):
    """One prompt's tokens: ids [T], experts and gate weights [T, L, k], router logits [L, T, E] if recorded."""

    token_ids: npt.NDArray[np.int32]
    experts: npt.NDArray[np.unsignedinteger[Any]]
    weights: npt.NDArray[np.float16]
    logits: npt.NDArray[np.float32] | None
    prompt_tokens: int


@dataclass(frozen=True)
class RoutedTokens:
    """The routed tokens of a task's prompts.

    Attributes:
        ids: the prompts, N of them.
        offsets: int64 [N + 1]; prompt i has rows offsets[i] to offsets[i + 1].
        prompt_tokens: int32 [N], the number of prompt tokens among each prompt's rows.
        token_ids: int32 [T], the token of each row.
        experts: uint8 or uint16 [T, L, k].
        weights: float16 [T, L, k], the gate weights.
        logits: float32 [T, L, E], the router logits, or None where they were not recorded.
        answer_at: int32 [N], how many rows behind the prompt's are reasoning; -1 where the answer never began. None
            where no answer had any.
    """

    ids: tuple[str, ...]
    offsets: npt.NDArray[np.int64]
    prompt_tokens: npt.NDArray[np.int32]
    token_ids: npt.NDArray[np.int32]
    experts: npt.NDArray[np.unsignedinteger[Any]]
    weights: npt.NDArray[np.float16]
    logits: npt.NDArray[np.float32] | None = None
    answer_at: npt.NDArray[np.int32] | None = None

    def of(self, name: str) -> TokenRouting:
        """Return one prompt's tokens.

        Raises:
            BadInputError: no such prompt was recorded.
        """
        if name not in self.ids:
            raise BadInputError(f"no routing was recorded for prompt '{name}'")
        at = self.ids.index(name)
        rows = slice(int(self.offsets[at]), int(self.offsets[at + 1]))
        return TokenRouting(
            self.token_ids[rows],
            self.experts[rows],
            self.weights[rows],
            None if self.logits is None else self.logits[rows].transpose(1, 0, 2),
            int(self.prompt_tokens[at]),
        )

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """The prompt that each row belongs to, [T]."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.offsets))

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Each row's place in what was generated, [T]: 0 is the first token, prompt tokens are negative."""
        return np.arange(len(self.token_ids)) - (self.offsets[:-1] + self.prompt_tokens)[self.samples]

    @property
    def answer_places(self) -> npt.NDArray[np.int64]:
        """Each row's place in its answer, [T]: 0 is its first token; negative before it, and where none began."""
        if self.answer_at is None:
            return self.places
        starts = self.answer_at.astype(np.int64)
        starts[starts < 0] = len(self.token_ids) + _FAR
        return self.places - starts[self.samples]

    def check(self, counts: RoutingCounts, where: str) -> None:
        """Prove that the rows are those that were counted.

        Raises:
            HarnessError: the numbers of tokens differ, or the experts do not add up to the counts.
        """
        prompt, both = counts.of("prompt")[1], counts.of("all")
        if (
            self.ids != counts.ids
            or (np.diff(self.offsets) != both[1]).any()
            or (self.prompt_tokens != prompt).any()
        ):
            raise HarnessError(f"{where}: the recorded tokens are not those that were counted")
        if (usage(self, counts.counts.shape[-1]) != both[0]).any():
            raise HarnessError(f"{where}: the recorded experts do not add up to the counts")


def answer_at(reasoning: npt.NDArray[np.integer], decision: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """Return where answers begin, [N], from the routed tokens of two phases; -1 where none began."""
    return np.where(decision > 0, reasoning, -1).astype(np.int32)


def usage(
    tokens: RoutedTokens, n_experts: int, rows: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Count how many of each prompt's tokens went to each expert, [N, L, E].

    Args:
        tokens: the routed tokens.
        n_experts: E.
        rows: bool [T], which tokens to count; all by default.
    """
    chosen = slice(None) if rows is None else rows
    experts, samples = tokens.experts[chosen].astype(np.int64), tokens.samples[chosen]
    n, (_, layers, _) = len(tokens.ids), tokens.experts.shape
    # One layer at a time: the index of all layers together would take eight bytes per token, layer and k.
    counted = [
        np.bincount((samples[:, None] * n_experts + experts[:, layer]).ravel(), minlength=n * n_experts)
        for layer in range(layers)
    ]
    return np.stack([column.reshape(n, n_experts) for column in counted], axis=1)


def join_tokens(parts: Sequence[RoutedTokens]) -> RoutedTokens:
    """Put the tokens of several batches or tasks one after another."""
    logits = [part.logits for part in parts if part.logits is not None]
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return RoutedTokens(
        ids=tuple(name for part in parts for name in part.ids),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        prompt_tokens=np.concatenate([part.prompt_tokens for part in parts]),
        token_ids=np.concatenate([part.token_ids for part in parts]),
        experts=np.concatenate([part.experts for part in parts]),
        weights=np.concatenate([part.weights for part in parts]),
        logits=np.concatenate(logits) if len(logits) == len(parts) else None,
        answer_at=np.concatenate(
            [
                np.zeros(len(part.ids), np.int32) if part.answer_at is None else part.answer_at
                for part in parts
            ]
        ),
    )


def reorder_tokens(tokens: RoutedTokens, ids: Sequence[str]) -> RoutedTokens:
    """Return the same tokens with the prompts in the order of `ids`."""
    position = {name: i for i, name in enumerate(tokens.ids)}
    order = [position[name] for name in ids]
    lengths = np.diff(tokens.offsets)[order]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    # Row r of the result is row r - (new start) + (old start) of the old.
    rows = np.arange(offsets[-1]) + np.repeat(tokens.offsets[order] - offsets[:-1], lengths)
    return RoutedTokens(
        tuple(ids),
        offsets,
        tokens.prompt_tokens[order],
        tokens.token_ids[rows],
        tokens.experts[rows],
        tokens.weights[rows],
        None if tokens.logits is None else tokens.logits[rows],
        None if tokens.answer_at is None else tokens.answer_at[order],
    )
