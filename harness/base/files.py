"""Files that appear whole, written beside their place and renamed; files that are read, or refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, first_line

if TYPE_CHECKING:
    import yaml


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as a whole file."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8", newline="\n")

    write_whole(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused, since JSON has none."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return the text that `write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_text(path: Path, what: str = "text") -> str:
    """Return what a UTF-8 file holds, its line endings as they are.

    Args:
        path: the file.
        what: what it should be, for the message.

    Raises:
        BadInputError: the file is not there, cannot be read, or is not UTF-8 text.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file") from None
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: not valid {what}: byte {error.start} is not UTF-8 text") from error


def parse_json(text: str, where: object, line: int = 1) -> Any:
    """Return what a JSON text holds.

    Args:
        text: the whole document.
        where: the beginning of the message, usually the file's path.
        line: the line of the file on which the text begins.

    Raises:
        BadInputError: it is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"line {line + error.lineno - 1}: {error.msg}"
    except RecursionError:
        problem = "nested too deeply"
    raise BadInputError(f"{where}: not valid JSON: {problem}")


def parse_yaml(text: str, where: object, loader: type[yaml.SafeLoader] | None = None) -> Any:
    """Return what a YAML text holds.

    Args:
        text: the whole document.
        where: the beginning of the message, usually the file's path.
        loader: for YAML with more than the standard tags.

    Raises:
        BadInputError: it is not YAML.
    """
    import yaml

    try:
        return yaml.load(text, Loader=loader or yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        problem = f"{line}{error.problem}"
    except yaml.YAMLError as error:
        problem = first_line(error)
    except RecursionError:
        problem = "nested too deeply"
    raise BadInputError(f"{where}: not valid YAML: {problem}")


def read_json(path: Path) -> Any:
    """Read one JSON document.

    Raises:
        BadInputError: the file is missing or not JSON.
    """
    return parse_json(read_text(path, "JSON"), path)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        BadInputError: the file is missing, not JSON, or holds something else.
    """
    return _mapping(read_json(path), path)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line.

    Only a newline ends a record: `str.splitlines` would also cut at U+2028, which answers may hold.

    Raises:
        BadInputError: the file is missing, or a line is not a JSON object.
    """
    lines = enumerate(read_text(path, "JSON").split("\n"), start=1)
    rows = ((number, parse_json(line, path, number)) for number, line in lines if line.strip())
    return [_mapping(row, f"{path}: line {number}") for number, row in rows]


def read_mapping(path: Path) -> dict[str, Any]:
    """Read one YAML file that holds keys and values.

    Raises:
        BadInputError: the file is not there, not YAML, or holds something else.
    """
    return _mapping(parse_yaml(read_text(path, "YAML"), path), path)


def _mapping(content: Any, where: object) -> dict[str, Any]:
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise BadInputError(f"{where}: expected a mapping of keys to values, found {found}")
    return content


def sha256(path: Path) -> str:
    """Return the hex digest of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
