"""Files that appear whole, written beside their place and renamed; files that are read, or refused in one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.base.documents import parse_json, parse_yaml
from harness.base.errors import BadInputError, HarnessError

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
_PRIVATE = 0o600


def write_whole(path: Path, write: Callable[[Path], None], size: int | None = None) -> None:
    """Let `write` fill a temporary file beside `path`, sync it to disk and rename it into place.

    The file gets the mode that the umask gives, whatever `write` made of it.

    Args:
        path: the file.
        write: fills the file that it is given.
        size: how many bytes it is going to write, where that is known.

    Raises:
        HarnessError: the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with full_disk_named(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            write(temporary)
            # Some writers, such as that of safetensors, make files that no one else may read.
            if temporary.stat().st_mode != mode:
                temporary.chmod(mode)
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def move_folder(folder: Path, target: Path) -> None:
    """Sync a folder and all its files to disk and rename it, so that it is whole wherever it is seen."""
    probe = folder / f".{os.getpid()}.tmp"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            if path.stat().st_mode & 0o777 == _PRIVATE:
                path.chmod(mode)
            _sync(path)
    for path in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        _sync(path)
    folder.rename(target)
    _sync(target.parent)


def at_home(path: Path) -> Path:
    """Return a path with the home folder in place of a leading `~`.

    Raises:
        BadInputError: it names a user whom this machine does not know.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise BadInputError(f"{path}: no home folder of {path.parts[0].removeprefix('~')!r}") from None


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a loss of power."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def is_leftover(name: str) -> bool:
    """Say whether a file's name is that of a temporary file, which only a killed process leaves behind."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def full_disk_named(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn the error of a full disk inside the block into one line.

    Args:
        path: what is written.
        size: how many bytes it has, where that is known.

    Raises:
        HarnessError: names the file, and how much room it needs and finds.
    """
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:  # safetensors, pyarrow, torch and datasets have errors of their own for it
        if not is_full_disk(error):
            raise
        raise full_disk(path, size) from error


def is_full_disk(error: BaseException) -> bool:
    """Say whether an error, or what it was raised from, is that of a full disk."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if os.strerror(errno.ENOSPC) in str(error):
        return True
    return error.__cause__ is not None and is_full_disk(error.__cause__)


def full_disk(path: Path, size: int | None = None) -> HarnessError:
    """Return the error for a file whose disk is full; how many bytes it has may be known."""
    needed = "" if size is None else f"{amount(size)} needed, "
    folder = next(place for place in (path, *path.absolute().parents) if place.is_dir())
    free = amount(shutil.disk_usage(folder).free)
    return HarnessError(
        f"{path}: the disk is full: {needed}{free} free; the same command continues when there is room"
    )


def amount(size: int) -> str:
    """Return a number of bytes as a line shows it."""
    unit, name = next(
        ((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit), (1e3, "kB")
    )
    return f"{size / unit:,.1f} {name}"


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as a whole file."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8", newline="\n")

    write_whole(path, write, len(text.encode("utf-8", "surrogatepass")))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused, since JSON has none."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return the text that `write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_text(path: Path, what: str = "text", encoding: str = "utf-8") -> str:
    """Return what a text file holds, its line endings as they are.

    Args:
        path: the file.
        what: what it should be, for the message.
        encoding: of the text; a mark at the beginning of UTF-8 is skipped.

    Raises:
        BadInputError: the file is not there, cannot be read, or is not text of this encoding.
    """
    try:
        return path.read_bytes().decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file") from None
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path}: not valid {what}: byte {error.start} is not {encoding.upper()} text"
        ) from error


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
