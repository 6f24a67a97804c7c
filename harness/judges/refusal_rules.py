"""The rules by which answers are read, from refusal_rules.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

_PART = re.compile(r"<(\w+)>")
_TO_THE_END = r"[\s\S]*"


class Rule(NamedTuple):
    """One way to decline, or one kind of clause that only sounds so.

    Attributes:
        id: what a verdict names.
        pattern: searched in the normalised opening.
        example: an answer that it is for.
        protects: of a clause that only sounds so, whether the answer is then compliance.
    """

    id: str
    pattern: re.Pattern[str]
    example: str
    protects: bool = False

    @property
    def to_the_end(self) -> bool:
        """Whether it takes everything that follows, as what is composed for somebody else."""
        return self.pattern.pattern.endswith(_TO_THE_END)


class _File:
    """refusal_rules.yaml, with its parts put into its patterns."""

    def __init__(self) -> None:
        self._content = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
        self._parts: dict[str, str] = {}
        for name, text in self._content["parts"].items():
            self._parts[name] = self._expanded(text)

    def rules(self, name: str) -> tuple[Rule, ...]:
        listed: Mapping[str, Mapping[str, Any]] = self._content[name]
        return tuple(
            Rule(id, self._joined(rule["patterns"]), rule["example"], rule.get("protects", False))
            for id, rule in listed.items()
        )

    def pattern(self, name: str) -> re.Pattern[str]:
        return self._joined(self._content[name])

    def _joined(self, texts: Iterable[str]) -> re.Pattern[str]:
        return re.compile("|".join(map(self._expanded, texts)))

    def _expanded(self, text: str) -> str:
        alternatives = _PART.sub(lambda match: self._parts[match[1]], text).split(" / ")
        return f"(?:{'|'.join(alternatives)})" if len(alternatives) > 1 else alternatives[0]


_FILE = _File()
RULES, HARMLESS = _FILE.rules("rules"), _FILE.rules("harmless")
DISCLAIMER, NATURE, DISAPPROVAL, ALL_THE_SAME, EMPTY, DEEDS, OPENS_UNABLE, DECLINES_ON = map(
    _FILE.pattern,
    ("disclaimers", "nature", "disapproval", "all_the_same", "empty", "deeds", "opens_unable", "declines_on"),
)
