"""Read YAML and JSON files into typed objects; every mistake in a file becomes one line that names it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from harness.base.errors import BadInputError, nearest
from harness.base.files import read_json, read_jsonl, read_mapping

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

# A file with more mistakes than these has one cause; a line of them all could not be read.
_MOST = 5


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
    return validated(_read(path, read_json), path, shape)


def read_jsonl_as(path: Path, row: type[T]) -> list[T]:
    """Read and validate one JSON object per line.

    Raises:
        BadInputError: the file is missing, or a line is not JSON or not what `row` asks for.
    """
    return validated(_read(path, read_jsonl), path, list[row])  # type: ignore[valid-type]


def _read(path: Path, read: Any) -> Any:
    try:
        return read(path)
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file") from None
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # also bytes that are not UTF-8
        raise BadInputError(f"{path}: not valid JSON ({error}): it was cut off or changed") from None


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
        raise BadInputError(f"{where}: {explain(error, shape)}") from None
    return value


@functools.cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def explain(error: ValidationError, shape: object) -> str:
    """Return the mistakes that pydantic reports, as one line: "field: what was expected; other field: ..."."""
    mistakes = list(dict.fromkeys(_explanations(error, shape)))
    more = len(mistakes) - _MOST
    return "; ".join(mistakes[:_MOST]) + (f" (and {more} more)" if more > 0 else "")


def _explanations(error: ValidationError, shape: object) -> Iterator[str]:
    model = next(_models_in(shape), BaseModel)
    for item in error.errors(include_url=False):
        # The names of a union's branches are no part of a file.
        location = tuple(part for part in item["loc"] if "[" not in str(part))
        field = ".".join(str(part) for part in location)
        if item["type"] == "extra_forbidden":
            owner = _model_at(model, location[:-1])
            yield f"{field}: unknown key, {nearest(str(location[-1]), owner.model_fields)}"
        elif item["type"] in ("missing", "missing_argument"):
            yield f"{field}: missing"
        else:
            message = item["msg"].removeprefix("Value error, ")
            # A whole mapping (or an unknown state after a model's own check) would make the line unreadable.
            value = "" if isinstance(item["input"], dict) else f", found {_shortened(item['input'])}"
            yield f"{field}: {message}{value}" if field else f"{message}{value}"


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
