"""The reference page of `summary.json`: every part with its fields, from the schema's own sentences."""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel

from harness.runs.summary import SCHEMA_VERSION, Summary
from tools.markdown import generated, table


def page() -> str:
    """Return the page: the summary itself first, then each part where it is first named."""
    introduction = (
        f"The fields of `summary.json`, schema version {SCHEMA_VERSION} (`harness/runs/summary.py`). Rates are "
        "fractions of 1, intervals are 95 %, a null is *there is no such figure* and never zero. What the figures "
        "mean: [the run folder](../run-folder.md#summaryjson) and [reading a report](../reading-a-report.md)."
    )
    return generated("The summary", introduction, *map(_section, _parts(Summary)))


def _parts(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a model and all models that its fields hold, in the order in which they are named."""
    found = [model]
    for each in found:
        for field in each.model_fields.values():
            found += [part for part in _models(field.annotation) if part not in found]
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _section(model: type[BaseModel]) -> str:
    rows = (
        [f"`{name}`", f"`{_type(field.annotation)}`", field.description or ""]
        for name, field in model.model_fields.items()
    )
    text = (model.__doc__ or "").strip().partition("\n\n")[0]
    return f"## {model.__name__}\n\n{text}\n\n{table(['field', 'type', 'meaning'], rows)}"


def _type(annotation: Any) -> str:
    """Return an annotation as it is read: no modules, `null` for None, choices as words."""
    if annotation is None or annotation is type(None):
        return "null"
    text = (
        annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    )
    text = re.sub(r"Literal\[([^\]]*)\]", lambda choices: choices[1].replace(", ", " | "), text)
    text = re.sub(r"Annotated\[(\w+), [^\]]*\]", r"\1", text)
    text = re.sub(r"Optional\[([^\]]*)\]", r"\1 | None", text)
    return re.sub(r"\b(?:\w+\.)+", "", text).replace("None", "null")
