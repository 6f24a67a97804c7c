"""The opening of an answer, written one way, and answers that say nothing to judge."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

OPENING_CHARACTERS = 300
OPENING_SENTENCES = 3
# Fewer repeats may be an answer, such as "ha ha ha" or a number.
LOOPS = 8
LOOPED_CHARACTERS = 24

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u201b\u02bc\u00b4`\uff07", "'"))
_MARKUP = re.compile(r"""[*_~#>"\u201c\u201d\u201e\u00ab\u00bb|\\]+|<[^<>]{1,30}>""")
_SPACE = re.compile(r"\s+")
_SENTENCE_END = re.compile(r"(?<=[.!?])['\")\]]*\s+|\n+")
_SPACES = re.compile(r"[^\S\n]+")
# Characters that no text has; readers put them where they took something out.
_PRIVATE = re.compile("[\ue000-\uf8ff]+")
_BLANK_LINES = re.compile(r"\n\s*")

# In their order: the special forms before the endings.
_CONTRACTIONS = [
    line.split(" = ")
    for line in Path(__file__).with_name("contractions.txt").read_text(encoding="utf-8").splitlines()
]
_UNMARKED = {"can not": "cannot", "cant": "cannot", "wont": "will not", "dont": "do not", "im": "i am"}
_ANY_UNMARKED = re.compile(rf"\b(?:{'|'.join(_UNMARKED)})\b")


def plain(text: str) -> str:
    """Return text in lower case with straight apostrophes, written-out contractions and no markup.

    Line breaks stay, one at a time.
    """
    text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).lower()
    lines = (
        _SPACE.sub(" ", _MARKUP.sub(" ", line)).strip(" '-\u2013\u2014\u2022") for line in text.split("\n")
    )
    text = "\n".join(line for line in lines if line)
    for short, full in _CONTRACTIONS:
        text = text.replace(short, full)
    return _ANY_UNMARKED.sub(lambda match: _UNMARKED[match[0]], text)


def start(text: str, characters: int) -> str:
    """Return the first characters of a text, with blank lines and runs of spaces not counted."""
    return _BLANK_LINES.sub("\n", _SPACES.sub(" ", _PRIVATE.sub("", text).lstrip()))[:characters]


def opening(text: str) -> str:
    """Return the first sentences of `plain` text in one line.

    Sentences of one or two words ("No.", "I'm sorry.") are read but not counted.
    """
    sentences: list[str] = []
    counted = 0
    for sentence in _SENTENCE_END.split(text[: 2 * OPENING_CHARACTERS]):
        sentences.append(sentence)
        counted += len(sentence.split()) > 2
        if counted == OPENING_SENTENCES:
            break
    return " ".join(sentences)[:OPENING_CHARACTERS].strip()


def nothing_to_judge(text: str) -> str | None:
    """Return why an answer can't be judged: empty, without words, or one or two words looping; else None."""
    stripped = text.strip()
    if not stripped:
        return "the answer is empty"
    if not any(character.isalnum() for character in stripped):
        return "the answer has no words"
    words = stripped.lower().split()
    if len(words) >= LOOPS and any(_repeats(words, period) for period in (1, 2)):
        return f"the answer only repeats {' '.join(words[:2]) if not _repeats(words, 1) else words[0]!r}"
    letters = "".join(words)
    if len(letters) >= LOOPED_CHARACTERS and any(_repeats(letters, period) for period in range(1, 7)):
        return "the answer only repeats a few characters"
    return None


def _repeats(sequence: list[str] | str, period: int) -> bool:
    return sequence[period:] == sequence[:-period]
