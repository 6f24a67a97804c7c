"""Answers that say nothing although they have words: truncated before they began, or looping; and loops at the end."""

from __future__ import annotations

import itertools
import re

# Fewer words than these may be an answer of any kind.
_FEWEST_TO_LOOP = 20
_FEWEST_TRUNCATED = 3
# Of word pairs in an opening; prose has nearly all distinct.
_DISTINCT_PAIRS = 0.35
_OPENING_WORDS = 60

# A tail of as many characters that says the same three times or more is a loop.
_SHORTEST_TAIL = 40
_TIMES = 3
_LONGEST_TAIL = 20_000

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


def ends_in_a_loop(response: str) -> bool:
    """Say whether a text ends by repeating itself, as one does that only a token limit ends.

    The last piece may be broken off anywhere. Takes time in proportion to the text, of which the last 20,000 characters
    are looked at.
    """
    tail = " ".join(response[-_LONGEST_TAIL:].split())[::-1]
    # Knuth, Morris and Pratt's failure function: the text's first n characters repeat every n - longest[n - 1].
    longest, length = [0] * len(tail), 0
    for place in range(1, len(tail)):
        while length and tail[place] != tail[length]:
            length = longest[length - 1]
        length += tail[place] == tail[length]
        longest[place] = length
        n = place + 1
        if n >= _SHORTEST_TAIL and n >= _TIMES * (n - length):
            return True
    return False
