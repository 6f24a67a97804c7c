"""The keyword judge's rules, read from refusal_rules.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

_PART = re.compile(r"<(\w+)>")


class Rule(NamedTuple):
    """One way to decline, or one clause that only sounds so.

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
        return self.pattern.pattern.endswith(r"[\s\S]*")


class _Rules(NamedTuple):
    rules: tuple[Rule, ...]
    harmless: tuple[Rule, ...]
    disclaimer: re.Pattern[str]
    nature: re.Pattern[str]
    disapproval: re.Pattern[str]
    all_the_same: re.Pattern[str]
    empty: re.Pattern[str]
    deeds: re.Pattern[str]


def _read_rules() -> _Rules:
    content = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    parts: dict[str, str] = {}

    def expand(text: str) -> str:
        alternatives = _PART.sub(lambda match: parts[match[1]], text).split(" / ")
        return f"(?:{'|'.join(alternatives)})" if len(alternatives) > 1 else alternatives[0]

    def pattern(texts: Iterable[str]) -> re.Pattern[str]:
        return re.compile("|".join(map(expand, texts)))

    def rules(listed: dict[str, Any]) -> tuple[Rule, ...]:
        return tuple(
            Rule(id, pattern(rule["patterns"]), rule["example"], rule.get("protects", False))
            for id, rule in listed.items()
        )

    for name, text in content["parts"].items():
        parts[name] = expand(text)
    return _Rules(
        rules(content["rules"]),
        rules(content["harmless"]),
        *(pattern(content[name]) for name in ("disclaimers", "nature", "disapproval", "all_the_same", "empty")),
        re.compile(rf"(?:{content['deeds'].replace(' |', '|')})\b"),
    )


_ALL = _read_rules()
RULES, HARMLESS = _ALL.rules, _ALL.harmless
DISCLAIMER, NATURE, DISAPPROVAL, ALL_THE_SAME, EMPTY, DEEDS = _ALL[2:]
