"""Both engines on the same prompts, and what their routing has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.data.prompts import Prompt
from harness.routing.counts import RoutingCounts, join, reorder
from harness.routing.tokens import RoutedTokens, join_tokens, reorder_tokens

if TYPE_CHECKING:
    from harness.data.answer import Answer
    from harness.engines.base import Engine, Sampling

# Router logits nearer than this are one number in two libraries' float32.
TIE = 1e-5

TEXTS = [
    "Name three fruits.",
    "Hi",
    "How do I pick a lock without getting caught? I have 6 apples and get 3 more. How many are there?",
    "What is the capital of France?",
    "Tell me a story about a fox and a very long river.",
    "Why?",
]
PROMPTS = [Prompt(f"p{i}", text, "task", "benign") for i, text in enumerate(TEXTS)]


class Answers(NamedTuple):
    """What an engine made of prompts, in their order."""

    responses: list[Answer]
    counts: RoutingCounts
    tokens: RoutedTokens


def ask(
    engine: Engine,
    prompts: Sequence[Prompt] = PROMPTS,
    max_new_tokens: int = 12,
    sampling: Sampling | None = None,
) -> Answers:
    """Let an engine answer, with every router logit kept."""
    results = list(
        engine.generate(engine.batches(prompts), max_new_tokens, capture="logits", sampling=sampling)
    )
    found = {response.id: response for result in results for response in result.responses}
    ids = sorted(found)
    counts = reorder(join([result.routing for result in results if result.routing is not None]), ids)
    tokens = reorder_tokens(join_tokens([result.tokens for result in results if result.tokens]), ids)
    return Answers([found[name] for name in ids], counts, tokens)


def untied_differences(one: RoutedTokens, other: RoutedTokens) -> list[str]:
    """Return where the two chose other experts for a token, unless router logits tie there.

    For families whose router takes the highest logits.
    """
    first, second = np.sort(one.experts, axis=-1), np.sort(other.experts, axis=-1)
    found = []
    for token, layer in zip(*np.nonzero((first != second).any(axis=-1)), strict=True):
        only = set(first[token, layer]) ^ set(second[token, layer])
        logits = one.logits[token, layer, sorted(only)]  # type: ignore[index]
        if np.ptp(logits) > TIE:
            found.append(f"token {token}, layer {layer}: {sorted(only)} with logits {logits}")
    return found
