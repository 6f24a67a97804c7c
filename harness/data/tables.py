"""Rows from CSV, JSON, JSONL and Parquet files, recognised by suffix and checked against it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError, first_line

Row = dict[str, Any]


def read_table(path: Path) -> list[Row]:
    """Return a file's rows as mappings from column to value.

    Raises:
        BadInputError: the suffix is unknown, the file can't be read, or it is not what its suffix says.
    """
    readers: dict[str, Callable[[Path], list[Row]]] = {
        ".csv": _csv,
        ".json": _json,
        ".jsonl": _jsonl,
        ".parquet": _parquet,
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise BadInputError(f"{path}: expected a file ending in {', '.join(readers)}")
    try:
        return readers[suffix](path)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _text(path: Path, what: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: not {what}: byte {error.start} is not UTF-8 text") from error


def _csv(path: Path) -> list[Row]:
    text = _text(path, "CSV")
    if text.lstrip()[:1] in ("{", "["):
        raise BadInputError(f"{path}: not CSV: it begins like JSON")
    if "\0" in text:
        raise BadInputError(f"{path}: not CSV: it holds a zero byte")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise BadInputError(f"{path}: line 1: a column name is given twice")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise BadInputError(
                    f"{path}: line {reader.line_num}: expected {len(header)} columns, found {len(fields)}"
                )
            rows.append(dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise BadInputError(f"{path}: not CSV: line {reader.line_num}: {error}") from error
    return rows


def _json(path: Path) -> list[Row]:
    try:
        content = json.loads(_text(path, "JSON"))
    except json.JSONDecodeError as error:
        raise BadInputError(f"{path}: not JSON: line {error.lineno}: {error.msg}") from error
    if not isinstance(content, list):
        raise BadInputError(f"{path}: expected a JSON list of objects, found a {type(content).__name__}")
    for number, row in enumerate(content):
        if not isinstance(row, dict):
            raise BadInputError(f"{path}: row {number}: expected an object, found a {type(row).__name__}")
    return content


def _jsonl(path: Path) -> list[Row]:
    rows = []
    # Only a newline ends a record: str.splitlines would also cut at U+2028, which JSON strings may hold.
    for number, line in enumerate(_text(path, "JSONL").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInputError(f"{path}: not JSONL: line {number}: {error.msg}") from error
        if not isinstance(row, dict):
            raise BadInputError(f"{path}: line {number}: expected an object, found a {type(row).__name__}")
        rows.append(row)
    return rows


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        # `read` of one file, not of a data set: a folder name such as "split=test" must not add columns.
        with path.open("rb") as file:
            rows: list[Row] = pyarrow.parquet.ParquetFile(file).read().to_pylist()
    except pyarrow.ArrowException as error:
        raise BadInputError(f"{path}: not Parquet: {first_line(error)}") from error
    return rows
