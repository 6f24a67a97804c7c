"""Rows from CSV, TSV, JSON, JSONL and Parquet files, recognised by suffix and checked against it."""

from __future__ import annotations

import codecs
import csv
import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.base.errors import BadInputError, first_line, nearest
from harness.base.files import read_json, read_json_object, read_jsonl, read_text

Row = dict[str, Any]


class Reader(BaseModel):
    """How files are read that are not as their suffix says."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """What separates the columns of a CSV or TSV file, such as ";"."""
    encoding: str = "utf-8"
    """Of a CSV or TSV file, such as "latin-1"."""
    rows: str | None = None
    """Where a JSON file is an object, the key of its list of rows."""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise ValueError("expected the name of an encoding, such as utf-8 or latin-1") from None
        return encoding


_USUAL = Reader()


def read_table(path: Path, reader: Reader = _USUAL) -> list[Row]:
    """Return a file's rows as mappings from column to value.

    Args:
        path: the file.
        reader: how to read it, where that is not as usual.

    Raises:
        BadInputError: the suffix is unknown, the file can't be read, or it is not what its suffix says.
    """
    readers: dict[str, Callable[[Path], list[Row]]] = {
        ".csv": functools.partial(_csv, delimiter=reader.delimiter or ",", encoding=reader.encoding),
        ".tsv": functools.partial(_csv, delimiter=reader.delimiter or "\t", encoding=reader.encoding),
        ".json": functools.partial(_json, key=reader.rows),
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


def _csv(path: Path, delimiter: str, encoding: str) -> list[Row]:
    name = path.suffix[1:].upper()
    text = read_text(path, name, encoding)
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


def _json(path: Path, key: str | None) -> list[Row]:
    content = read_json(path) if key is None else _rows_under(read_json_object(path), key, path)
    if not isinstance(content, list):
        raise BadInputError(f"{path}: expected a JSON list of objects, found a {type(content).__name__}")
    for number, row in enumerate(content):
        if not isinstance(row, dict):
            raise BadInputError(f"{path}: row {number}: expected an object, found a {type(row).__name__}")
    return content


def _rows_under(content: Mapping[str, Any], key: str, path: Path) -> Any:
    if key not in content:
        raise BadInputError(f"{path}: no key '{key}', {nearest(key, content)}")
    return content[key]


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
