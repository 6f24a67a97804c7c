"""Refusals that a model learns to give, and those held out to see whether it learnt more than their words.

The phrasings are in refusals.txt beside this file, thoughts that may precede them in refusal_thoughts.txt. Both may
name the topic, always by a noun phrase of topics.txt and never by words of the prompt, so that none repeats a harmful
detail.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.data.prompts import Prompt

HELD_OUT_EVERY = 10
_SLOT = re.compile(r"\{topic\}", re.IGNORECASE)


@cache
def _lines(name: str) -> tuple[str, ...]:
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


def refusal_phrasings(held_out: bool = False) -> list[str]:
    """Return the phrasings to train on, or the tenth that is never trained on.

    A phrasing may contain `{topic}`, or `{Topic}` where it opens a sentence.
    """
    lines = _lines("refusals.txt")
    return [line for place, line in enumerate(lines, start=1) if (place % HELD_OUT_EVERY == 0) == held_out]


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    patterns = []
    for line in _lines("topics.txt"):
        topic, _, words = line.partition(": ")
        forms = "|".join(re.escape(word).replace(r"\*", r"\w*") for word in words.split())
        patterns.append((re.compile(rf"\b(?:{forms})\b", re.IGNORECASE), topic))
    return tuple(patterns)


def topic_of(text: str, category: str | None) -> str | None:
    """Name what a harmful prompt is about, in a phrase that fits after "help with".

    Args:
        text: the prompt.
        category: what its task says it is about.

    Returns:
        A phrase of topics.txt, by the category or else by the prompt's words; None where neither fits.
    """
    for source in (category or "", text):
        for pattern, topic in _patterns():
            if pattern.search(source):
                return topic
    return None


def fill(phrasing: str, topic: str) -> str:
    """Put a topic into a phrasing, with a capital where it opens a sentence."""
    return phrasing.replace("{topic}", topic).replace("{Topic}", topic[0].upper() + topic[1:])


def refusals_for(prompts: Sequence[Prompt], seed: int, held_out: bool = False) -> list[str]:
    """Return one refusal for each prompt.

    Which one depends on the seed and the prompt's id alone, so leaving prompts out changes no other's
    refusal. Prompts without a known topic get phrasings that name none.
    """
    return _drawn(refusal_phrasings(held_out), prompts, str(seed))


def thoughts_for(prompts: Sequence[Prompt], seed: int) -> list[str]:
    """Return for each prompt a short thought that leads to a refusal, drawn as refusals are."""
    return _drawn(_lines("refusal_thoughts.txt"), prompts, f"{seed} thought")


def _drawn(phrasings: Sequence[str], prompts: Sequence[Prompt], seed: str) -> list[str]:
    general = [phrasing for phrasing in phrasings if not _SLOT.search(phrasing)]
    texts = []
    for prompt in prompts:
        topic = topic_of(prompt.text, prompt.category)
        draw = random.Random(f"{seed} {prompt.id}")
        texts.append(draw.choice(general) if topic is None else fill(draw.choice(phrasings), topic))
    return texts
