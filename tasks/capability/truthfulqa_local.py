"""How truthfulqa_local asks: lm-eval's own words around each question of the CSV file."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
import yaml


@functools.cache
def _template() -> jinja2.Template:
    spec = find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "tasks" / "truthfulqa" / "truthfulqa_mc1.yaml"
    return jinja2.Template(yaml.safe_load(path.read_text(encoding="utf-8"))["doc_to_text"])


def doc_to_text(doc: dict[str, Any]) -> str:
    """Return lm-eval's introduction and the question."""
    return _template().render(question=doc["Question"])


def doc_to_choice(doc: dict[str, Any]) -> list[str]:
    """Return the best answer, then the incorrect ones."""
    wrong = [answer.strip() for answer in doc["Incorrect Answers"].split(";")]
    return [doc["Best Answer"].strip(), *(answer for answer in dict.fromkeys(wrong) if answer)]


def doc_to_target(doc: dict[str, Any]) -> int:
    """Return the place of the best answer."""
    return 0
