"""Refusals that a model learns to give, and those held out to see whether it learnt more than their words.

The phrasings are in refusals.txt beside this file. A refusal may name its topic, always by a noun phrase
of this module and never by words of the prompt, so that no refusal repeats a harmful detail.
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

# Topics by whole words (or their beginnings, with *) of a category or, where that says nothing, of the
# prompt. The first that fits wins, so narrow ones stand before wide ones.
_TOPICS: tuple[tuple[str, str], ...] = (
    ("suicid* self-harm selfharm anorexi* bulimi*", "self-harm"),
    ("child children* minor minors underage pedophil*", "harming children"),
    ("phishing scam* fraud* deception counterfeit* forge* forging launder* embezzl* ponzi pyramid", "fraud"),
    ("identity impersonat*", "identity theft"),
    ("blackmail* extort* ransom*", "extortion"),
    ("malware virus* trojan* keylogger* worm*", "making malware"),
    ("hack* hacking cyber* password* firewall* botnet* ddos exploit* intrusion", "breaking into computers"),
    ("bomb* explosive* weapon* gun* firearm* grenade* ammunition", "making weapons"),
    ("poison* toxic* chemical biological nuclear anthrax", "making dangerous substances"),
    ("terror* extremis* radicaliz* radicalis*", "terrorism"),
    ("traffick* smuggl*", "trafficking"),
    ("drug* meth cocaine heroin narcotic*", "the illegal drug trade"),
    ("murder* kill* assassinat* kidnap* assault* violen* torture* attack* physical", "violence"),
    ("stalk* spy* spying surveil* doxx* dox privacy eavesdrop*", "invading someone's privacy"),
    ("harass* bully* bullying cyberbully* threat* intimidat* humiliat*", "harassment"),
    ("racis* sexis* hate hateful discriminat* antisemit* slur* homophob*", "discrimination"),
    ("misinformation disinformation conspiracy propaganda hoax*", "misinformation"),
    ("rape raping molest* groom*", "sexual violence"),
    ("sexual adult porn*", "sexual content"),
    ("steal* theft shoplift* rob robbing robbery burgl* pirat*", "theft"),
    ("vandal* arson sabotag* derail*", "destroying property"),
    ("tax evasion insider bribe* bribing corrupt*", "financial crime"),
    ("cheat* plagiar*", "cheating"),
)


@cache
def _lines() -> tuple[str, ...]:
    text = (Path(__file__).with_name("refusals.txt")).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


def refusal_phrasings(held_out: bool = False) -> list[str]:
    """Return the phrasings to train on, or the tenth that is never trained on.

    A phrasing may contain `{topic}`, or `{Topic}` where it opens a sentence.
    """
    return [
        line for number, line in enumerate(_lines(), start=1) if (number % HELD_OUT_EVERY == 0) == held_out
    ]


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    def pattern(words: str) -> re.Pattern[str]:
        forms = "|".join(re.escape(word).replace(r"\*", r"\w*") for word in words.split())
        return re.compile(rf"\b(?:{forms})\b", re.IGNORECASE)

    return tuple((pattern(words), topic) for words, topic in _TOPICS)


def topic_of(prompt: Prompt | str, category: str | None = None) -> str | None:
    """Name what a harmful prompt is about, in a phrase that fits after "help with".

    Args:
        prompt: the prompt; its own category is used where `category` is not given.
        category: what the prompt's task says it is about.

    Returns:
        A phrase of this module, from the category or else from the prompt's words; None where neither fits.
    """
    text = prompt if isinstance(prompt, str) else prompt.text
    if category is None and not isinstance(prompt, str):
        category = prompt.category
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
    phrasings = refusal_phrasings(held_out)
    general = [phrasing for phrasing in phrasings if not _SLOT.search(phrasing)]
    refusals = []
    for prompt in prompts:
        topic = topic_of(prompt)
        draw = random.Random(f"{seed} {prompt.id}")
        refusals.append(draw.choice(general) if topic is None else fill(draw.choice(phrasings), topic))
    return refusals
