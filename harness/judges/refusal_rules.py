"""The keyword judge's rules, read from refusal_rules.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import yaml

_PART = re.compile(r"<(\w+)>")


class Rule(NamedTuple):
    """One way to decline.

    Attributes:
        id: what a verdict names.
        pattern: searched in the normalised opening.
        example: an answer that it is for.
    """

    id: str
    pattern: re.Pattern[str]
    example: str


def _read_rules() -> tuple[Rule, ...]:
    content = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    parts: dict[str, str] = {}

    def expand(text: str) -> str:
        alternatives = _PART.sub(lambda match: parts[match[1]], text).split(" / ")
        return f"(?:{'|'.join(alternatives)})" if len(alternatives) > 1 else alternatives[0]

    for name, text in content["parts"].items():
        parts[name] = expand(text)
    return tuple(
        Rule(id, re.compile("|".join(map(expand, rule["patterns"]))), rule["example"])
        for id, rule in content["rules"].items()
    )


RULES = _read_rules()
