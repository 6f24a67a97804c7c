"""Rows from CSV, TSV, JSON, JSONL and Parquet files, recognised by suffix and checked against it."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError, first_line
from harness.base.files import read_json, read_jsonl, read_text

Row = dict[str, Any]


def read_table(path: Path) -> list[Row]:
    """Return a file's rows as mappings from column to value.

    Raises:
        BadInputError: the suffix is unknown, the file can't be read, or it is not what its suffix says.
    """
    readers: dict[str, Callable[[Path], list[Row]]] = {
        ".csv": _csv,
        ".tsv": functools.partial(_csv, delimiter="\t"),
        ".json": _json,
        ".jsonl": read_jsonl,
        ".parquet": _parquet,
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise BadInputError(f"{path}: expected a file ending in {', '.join(readers)}")
    try:
        return readers[suffix](path)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _csv(path: Path, delimiter: str = ",") -> list[Row]:
    name = "CSV" if delimiter == "," else "TSV"
    text = read_text(path, name)
    if text.lstrip()[:1] in ("{", "["):
        raise BadInputError(f"{path}: not {name}: it begins like JSON")
    if "\0" in text:
        raise BadInputError(f"{path}: not {name}: it holds a zero byte")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
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
        raise BadInputError(f"{path}: not {name}: line {reader.line_num}: {error}") from error
    return rows


def _json(path: Path) -> list[Row]:
    content = read_json(path)
    if not isinstance(content, list):
        raise BadInputError(f"{path}: expected a JSON list of objects, found a {type(content).__name__}")
    for number, row in enumerate(content):
        if not isinstance(row, dict):
            raise BadInputError(f"{path}: row {number}: expected an object, found a {type(row).__name__}")
    return content


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
