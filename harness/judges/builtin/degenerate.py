"""Answers that say nothing although they have words: truncated before they began, or looping."""

from __future__ import annotations

import itertools
import re

# Fewer words than these may be an answer of any kind.
_FEWEST_TO_LOOP = 20
_FEWEST_TRUNCATED = 3
# Of word pairs in an opening; prose has nearly all distinct.
_DISTINCT_PAIRS = 0.35
_OPENING_WORDS = 60

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def why_degenerate(response: str, *, truncated: bool) -> str | None:
    """Return why an answer with words can't be judged, or None where it can.

    Args:
        response: the answer.
        truncated: whether the token limit ended it.
    """
    stripped = response.strip()
    words = [word.lower() for word in _WORD.findall(stripped)]
    if truncated and len(stripped.split()) < _FEWEST_TRUNCATED:
        return f"the answer was truncated after {len(stripped.split())} words"
    first = words[:_OPENING_WORDS]
    if len(first) >= _FEWEST_TO_LOOP and not stripped.startswith("```"):
        pairs = list(itertools.pairwise(first))
        if len(set(pairs)) < _DISTINCT_PAIRS * len(pairs):
            return "the answer loops from its beginning"
    return None
