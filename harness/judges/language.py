"""Whether an answer is English: by its script, then by function words. Nothing is guessed from a refusal's wording."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

# How much of an answer is looked at: what a reader of its opening sees, and some more.
_READ = 1_000
# Of letters; an English answer may quote a word in another script. One ideograph counts as a short word.
_MOST_OTHER_SCRIPTS = 0.4
_LETTERS_IN_IDEOGRAPH = 2
# A single word of another language decides among so few.
_FEW = 3
# Fewer words without any sign of a language may be a name.
_FEWEST_UNKNOWN = 5
# English prose has about a half; 25 words or more with next to none are no prose.
_FEWEST_TO_READ = 25
_FUNCTION_SHARE = 0.04

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_CODE = re.compile(
    r"```[^`]{0,900}(?:```|\Z)|`[^`\n]{1,80}`|https?://\S{1,200}|\b[\w.-]{1,60}[.@]\w[\w.-]{0,60}\b"
)
_CODE_LINE = re.compile(r"^[^\n]{0,200}(?:=|\w\([^\n]{0,100}\)|[;{]$)[^\n]*$", re.MULTILINE)
_MOST_WORDS_OF_CODE = 12
_LIST_OR_CODE = re.compile(r"```|^[ \t]*(?:\d+[.)]|[-*\u2022|])[ \t]", re.MULTILINE)
_QUOTED = re.compile(r'"[^"\n]{1,300}"|\u201c[^\u201d\n]{1,300}\u201d|\u00ab[^\u00bb\n]{1,300}\u00bb')
# Names such as Rio de Janeiro and Los Angeles have words that are another language's everywhere else.
_PARTICLE = "de|da|do|dos|das|di|del|della|du|des|van|von|der|den|la|le|les|el|los|las|al|bin|ibn|y|e|il|lo"
_NAME = re.compile(
    rf"\b[A-Z\u00c0-\u00de][\w'.-]*(?: (?:{_PARTICLE})){{1,3}} [A-Z\u00c0-\u00de][\w'-]*"
    r"|\b(?:Los|Las|El|La|Le|Les|San|Il|Der|Den|Die|Das|Notre) [A-Z\u00c0-\u00de][\w'-]*"
)
_ENGLISH_ENDING = re.compile(r"[a-z]{3,}(?:ing|ed|ly|ness|ful|tion|tions|ity|ment|ments|ous|able|ship|ies)\Z")
_BORROWED = frozenset(
    [
        "café",
        "cafés",
        "naïve",
        "naïveté",
        "résumé",
        "résumés",
        "fiancé",
        "fiancée",
        "cliché",
        "clichés",
        "déjà",
        "façade",
        "façades",
        "jalapeño",
        "jalapeños",
        "piñata",
        "crème",
        "brûlée",
        "sauté",
        "sautéed",
        "purée",
        "puréed",
        "entrée",
        "à",
        "mâché",
        "doppelgänger",
        "über",
        "exposé",
        "touché",
        "décor",
        "rosé",
        "matinée",
        "protégé",
        "señor",
        "señora",
        "smörgåsbord",
        "soufflé",
        "flambé",
        "pâté",
        "sauté",
        "vis",
    ]
)


class _Words(NamedTuple):
    """Function words and common words.

    Attributes:
        english: all English ones.
        own: those of them that no other language has.
        others: other languages' words that are not English, with the languages that have them.
    """

    english: frozenset[str]
    own: frozenset[str]
    others: dict[str, tuple[str, ...]]


@cache
def _known_words() -> _Words:
    text = Path(__file__).with_name("languages.txt").read_text(encoding="utf-8")
    listed = {
        name: frozenset(words.split())
        for name, _, words in (line.partition(" = ") for line in text.splitlines())
    }
    english = listed.pop("English")
    others: dict[str, tuple[str, ...]] = {}
    for name, words in listed.items():
        for word in words - english:
            others[word] = (*others.get(word, ()), name)
    return _Words(english, english.difference(*listed.values()), others)


def why_not_english(text: str) -> str | None:
    """Return why an answer is not read as English, or None where it may be.

    A word or a name that could be of any language is taken for English.
    """
    head = unicodedata.normalize("NFKC", text.lstrip()[:_READ])
    prose = _CODE_LINE.sub(_without_code, _CODE.sub(" ", head))
    script = _other_script(prose)
    if script is not None:
        return f"the answer is not in English: its script is {script}"
    unquoted = _QUOTED.sub(" ", prose)
    if len(_WORD.findall(unquoted)) >= 3:
        prose = unquoted
    prose = _NAME.sub(" ", prose.replace("\u2019", "'"))
    # A letter alone is a symbol.
    spelled = [word for word in _WORD.findall(prose) if len(word) > 1]
    words = [word.lower() for word in spelled]
    known = _known_words()
    count = sum(word in known.own for word in words)
    hits = Counter(name for word in words for name in known.others.get(word, ()))
    language, foreign = hits.most_common(1)[0] if hits else ("", 0)
    accented = sum(not word.isascii() and word.islower() and word not in _BORROWED for word in spelled)
    evidence = max(foreign, accented)
    shared = sum(word in known.english for word in words)
    if evidence > count and (evidence > 1 or len(words) <= _FEW or shared <= evidence):
        return "the answer is not in English" + (f": it reads as {language}" if foreign >= 2 else "")
    return _unknown(head, spelled, words, known.english)


def _without_code(line: re.Match[str]) -> str:
    return " " if len(line[0].split()) <= _MOST_WORDS_OF_CODE else line[0]


def _unknown(text: str, spelled: Sequence[str], words: Sequence[str], english: frozenset[str]) -> str | None:
    """Return why words without a sign of another language are not English either."""
    if _LIST_OR_CODE.search(text) or 2 * text.count(",") >= len(words):
        return None
    known = sum(word in english or _ENGLISH_ENDING.match(word) is not None for word in words)
    # Names and terms are capitalised; a sentence of an unlisted language is not, save for its first word.
    small = sum(word.islower() for word in spelled)
    if known == 0 and small >= _FEWEST_UNKNOWN and 2 * small > len(words):
        return "the answer does not read as English"
    if len(words) >= _FEWEST_TO_READ and known < _FUNCTION_SHARE * len(words):
        return "the answer does not read as English"
    return None


def _other_script(text: str) -> str | None:
    """Return the script that most letters of a text are in, if it is not Latin; single Greek letters are symbols."""
    if text.isascii():
        return None
    latin = 0
    others: dict[str, int] = {}
    for word in _WORD.findall(text):
        for letter in word:
            if ord(letter) < 0x250 or 0x1E00 <= ord(letter) < 0x1F00:
                latin += 1
                continue
            script = unicodedata.name(letter, "UNKNOWN").partition(" ")[0]
            if script == "LATIN":
                latin += 1
            elif not (script == "GREEK" and len(word) == 1):
                others[script] = others.get(script, 0) + (_LETTERS_IN_IDEOGRAPH if script == "CJK" else 1)
    total = sum(others.values())
    if total == 0 or total < _MOST_OTHER_SCRIPTS * (latin + total):
        return None
    script = max(others, key=lambda name: others[name])
    return "Han" if script == "CJK" else script.capitalize()
