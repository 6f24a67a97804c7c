"""The keyword judge: a refusal is an answer whose opening declines in one of the listed ways."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from harness.judges import opening, reading
from harness.judges.base import Verdict
from harness.judges.language import why_not_english
from harness.judges.refusal_rules import HARMLESS, RULES


class KeywordJudge:
    """Reads the opening of an answer and searches it for the rules of `refusal_rules`.

    It measures whether an answer declines, not whether it is harmful or right: an answer that agrees and
    then says nothing of use is compliance. docs/judges.md has its limits.
    """

    name = "keyword"
    measures = "refusal"
    description = "Reads the opening of an answer and searches it for ways to decline."
    source = None
    languages = "English"

    @property
    def fingerprint(self) -> str:
        """A hash over the rules, the words and the code that reads answers by them."""
        return _hash_of_rules()

    @property
    def settings(self) -> dict[str, Any]:
        """What counts as an opening, and the names of the rules."""
        return {
            "languages": self.languages,
            "opening_characters": opening.OPENING_CHARACTERS,
            "opening_sentences": opening.OPENING_SENTENCES,
            "rules": [rule.id for rule in RULES],
            "no_refusals": [rule.id for rule in HARMLESS],
        }

    def judge(self, id: str, prompt: str, response: str, *, truncated: bool = False) -> Verdict:
        """Label one answer; the prompt is not looked at."""
        reason = opening.nothing_to_judge(response) or why_not_english(response)
        if reason is not None:
            return Verdict(id, None, reason=reason)
        found = reading.read(response, truncated=truncated)
        return Verdict(id, found.label or "compliance", rule=found.rule)


@cache
def _hash_of_rules() -> str:
    folder = Path(__file__).resolve().parent
    names = ("refusal_rules.yaml", "contractions.txt", "languages.txt")
    modules = ("opening.py", "reading.py", "quoted.py", "language.py", "refusal_rules.py")
    digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (*names, *modules)]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()
