"""Read YAML and JSON files into typed objects; every mistake in a file becomes one line that names it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from harness.base.errors import BadInputError, nearest
from harness.base.files import read_json, read_jsonl, read_mapping

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

# A file with more mistakes than these has one cause; a line of them all could not be read.
_MOST = 5

_MISSING = ("missing", "missing_argument")
_OWN = ("value_error", "assertion_error")

# Values that a line can hold.
_SHOWN = (str, int, float, list, tuple, Path, type(None))

_WORDS = {
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
    r"a valid dictionary( or instance of \w+)?": "a mapping of keys to values",
    "a valid list": "a list",
    # The value that was found says as much.
    r", (unable to|got a) .*": "",
}


def read_yaml(path: Path, model: type[M]) -> M:
    """Read and validate one YAML file.

    Raises:
        BadInputError: the file is not there, not YAML, or not what `model` asks for; one line names the
            file, each wrong field, what was expected and, for a misspelt key, the nearest known one.
    """
    return validated(read_mapping(path), path, model)


def read_named_yaml(path: Path, model: type[M]) -> M:
    """Read a file whose `name` must be the name of the file.

    Raises:
        BadInputError: as `read_yaml`, or the two names differ.
    """
    content = read_yaml(path, model)
    require_file_name(path, getattr(content, "name", None))
    return content


def require_file_name(path: Path, name: str | None) -> None:
    """Refuse a file whose `name` is not the name of the file.

    Raises:
        BadInputError: the two names differ.
    """
    if name != path.stem:
        raise BadInputError(f"{path}: name: expected '{path.stem}', as the file is called, found '{name}'")


def read_json_as(path: Path, shape: type[T]) -> T:
    """Read and validate one JSON document.

    Args:
        path: the file.
        shape: a pydantic model, a dataclass, or a list or dict of these.

    Raises:
        BadInputError: the file is missing, not JSON, or not what `shape` asks for.
    """
    return validated(read_json(path), path, shape)


def read_jsonl_as(path: Path, row: type[T]) -> list[T]:
    """Read and validate one JSON object per line.

    Raises:
        BadInputError: the file is missing, or a line is not JSON or not what `row` asks for.
    """
    return validated(read_jsonl(path), path, list[row])  # type: ignore[valid-type]


def validated(content: object, where: object, shape: type[T], extra: Literal["ignore"] | None = None) -> T:
    """Return content as what `shape` asks for.

    Args:
        content: as a YAML or JSON file holds it.
        where: the beginning of the message, usually the file's path.
        shape: a pydantic model, a dataclass, or a list or dict of these.
        extra: "ignore" passes over unknown keys, whatever `shape` does with them.

    Raises:
        BadInputError: it is something else; one line says what is wrong, as `explain` does.
    """
    try:
        value: T = _adapter(shape).validate_python(content, extra=extra)  # type: ignore[arg-type]  # types are hashable
    except ValidationError as error:
        raise BadInputError(f"{where}: {explain(error, shape, content)}") from None
    return value


@functools.cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def explain(error: ValidationError, shape: object = None, content: object = None) -> str:
    """Return the mistakes that pydantic reports, as one line: "field: what was expected; other field: ...".

    Args:
        error: what pydantic raised.
        shape: what was asked for; it gives the names that are known.
        content: what was given.
    """
    at: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for item in error.errors(include_url=False):
        at.setdefault(_place(item, content), []).append(item)
    # Of a value that may be one of several things, what is wrong deepest inside it says most.
    inner = {place[:depth] for place in at for depth in range(len(place))}
    mistakes = [_in_words(place, items, shape) for place, items in at.items() if place not in inner]
    more = len(mistakes) - _MOST
    return "; ".join(mistakes[:_MOST]) + (f" (and {more} more)" if more > 0 else "")


def _place(item: ErrorDetails, content: Any) -> tuple[int | str, ...]:
    """Return the keys and numbers that lead to a mistake, without pydantic's names for the branches of a union."""
    place = []
    for part in item["loc"]:
        if isinstance(content, Mapping):
            inside = part in content
        else:
            inside = isinstance(content, (list, tuple)) and isinstance(part, int) and part < len(content)
        if inside:
            content = content[part]
        if inside or (item["type"] in _MISSING and part == item["loc"][-1]):
            place.append(part)
    return tuple(place)


def _in_words(place: tuple[int | str, ...], items: Sequence[ErrorDetails], shape: object) -> str:
    field = "".join(f"{part}." for part in place).removesuffix(".")
    prefix = f"{field}: " if field else ""
    first = items[0]
    if first["type"] == "extra_forbidden":
        return f"{prefix}unknown key, {_hint(place, next(_models_in(shape), BaseModel))}"
    if first["type"] in _MISSING:
        return f"{prefix}missing"
    expected = list(dict.fromkeys(_expected(item["msg"]) for item in items))
    message = " or ".join([expected[0], *(each.removeprefix("expected ") for each in expected[1:])])
    value = items[-1]["input"]
    if isinstance(value, Mapping):
        # After a model's own check this is the model, of which the message says enough.
        found = "" if first["type"] in _OWN else ", found a mapping"
    else:
        found = f", found {_shortened(value)}" if isinstance(value, _SHOWN) else ""
    return f"{prefix}{message}{found}"


def _expected(message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not message.startswith("Input should be "):
        return message
    message = message.replace("Input should be", "expected")
    for pattern, words in _WORDS.items():
        message = re.sub(pattern, words, message)
    return message


def _hint(place: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Return a clause that helps after an unknown key: where it belongs, or the nearest known one of its level."""
    key = str(place[-1])
    elsewhere = [name for name in _names_in(model) if name.endswith(f".{key}")]
    if elsewhere:
        return f"did you mean {' or '.join(map(repr, elsewhere))}?"
    fields = _model_at(model, place[:-1]).model_fields
    return nearest(key, [field.alias or name for name, field in fields.items()])


def _names_in(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        either = get_origin(field.annotation) in (Union, UnionType)
        for kind in get_args(field.annotation) if either else [field.annotation]:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _names_in(kind, f"{prefix}{name}.")


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        info = model.model_fields.get(str(part))
        if info is not None:
            model = next(_models_in(info.annotation), model)
    return model


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _shortened(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
