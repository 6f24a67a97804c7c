"""Read a YAML file into a pydantic model, with every mistake told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from harness.base.errors import BadInputError, nearest

M = TypeVar("M", bound=BaseModel)


def read_yaml(path: Path, model: type[M]) -> M:
    """Read and validate one YAML file.

    Raises:
        BadInputError: the file is not there, not YAML, or not what `model` asks for; one line names the
            file, each wrong field, what was expected and, for a misspelt key, the nearest known one.
    """
    return validated(read_mapping(path), path, model)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read one YAML file that holds keys and values.

    Raises:
        BadInputError: the file is not there, not YAML, or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: not YAML: byte {error.start} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise BadInputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BadInputError(f"{path}: expected a mapping of keys to values, found {_type_name(content)}")
    return content


def validated(content: dict[str, Any], path: Path, model: type[M]) -> M:
    """Return what a file holds as a model.

    Raises:
        BadInputError: it is not what `model` asks for; see `read_yaml`.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise BadInputError(f"{path}: {explain(error, model)}") from error


def read_named_yaml(path: Path, model: type[M]) -> M:
    """Read a file whose `name` must be what the file is called.

    Raises:
        BadInputError: as `read_yaml`, or the two names differ.
    """
    content = read_yaml(path, model)
    require_file_name(path, getattr(content, "name", None))
    return content


def require_file_name(path: Path, name: str | None) -> None:
    """Refuse a file that is not called like the thing in it.

    Raises:
        BadInputError: the two names differ.
    """
    if name != path.stem:
        raise BadInputError(f"{path}: name: expected '{path.stem}', as the file is called, found '{name}'")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return what pydantic found as one line: "field: what was expected; other field: ..."."""
    return "; ".join(_explanations(error, model))


def _explanations(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    for item in error.errors(include_url=False):
        location = item["loc"]
        field = ".".join(str(part) for part in location)
        if item["type"] == "extra_forbidden":
            owner = _model_at(model, location[:-1])
            yield f"{field}: unknown key, {nearest(str(location[-1]), owner.model_fields)}"
        elif item["type"] == "missing":
            yield f"{field}: missing"
        else:
            message = item["msg"].removeprefix("Value error, ")
            # A whole mapping (or an unknown state after a model's own check) would make the line unreadable.
            found = "" if isinstance(item["input"], dict) else f", found {_shortened(item['input'])}"
            yield f"{field}: {message}{found}" if field else f"{message}{found}"


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        info = model.model_fields.get(str(part))
        if info is not None:
            model = next(_models_in(info.annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _shortened(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _type_name(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
