"""The reference page of `summary.json`: every part with its fields, from the schema's own sentences."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

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
    return generated("The summary", introduction, *map(section, parts_of(Summary)))


def parts_of(model: type[BaseModel]) -> list[type[BaseModel]]:
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


def section(model: type[BaseModel]) -> str:
    """Return a model as a section: its sentence, and a row for each field."""
    rows = (
        [f"`{field.alias or name}`", f"`{_type(field.annotation)}`", field.description or ""]
        for name, field in model.model_fields.items()
    )
    text = (model.__doc__ or "").strip().partition("\n\n")[0]
    return f"## {model.__name__}\n\n{text}\n\n{table(['field', 'type', 'meaning'], rows)}"


def _type(annotation: Any) -> str:
    """Return an annotation as it is read: no modules, `null` for None, choices as words."""
    if annotation in (None, type(None)):
        return "null"
    if annotation is ...:
        return "..."
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " | ".join(map(_type, arguments))
    name = getattr(origin or annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(map(_type, arguments))}]" if arguments else name
