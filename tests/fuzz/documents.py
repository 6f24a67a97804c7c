"""Documents to feed to the product: made from a pydantic schema, or a valid one with a few things wrong in it."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st
from pydantic import TypeAdapter

DEEP: Any = []
for _ in range(150):
    DEEP = [DEEP]

WEIRD = [
    *(
        None,
        True,
        -1,
        0,
        7,
        0.5,
        -0.0,
        float("nan"),
        float("inf"),
        "",
        "x",
        "true",
        "1",
        "none",
        "../..",
        "a\x1b[2J",
    ),
    *(
        "\ud800",
        "😀",
        "{x}",
        "a\nb",
        [],
        {},
        [[]],
        [None],
        {"x": {}},
        {"": 1},
        ["x", "x"],
        "demo",
        "base",
        DEEP,
    ),
]
HUGE = [10**30, -(10**30), 10**400, 1e308, "9" * 5000, "x" * 200_000]


def values(*, huge: bool = True) -> st.SearchStrategy[Any]:
    """Return values that no field expects."""
    return st.sampled_from(WEIRD + (HUGE if huge else [])).map(copy.deepcopy)


def of_schema(shape: Any) -> st.SearchStrategy[Any]:
    """Return documents of the types that a pydantic model asks for, whatever they mean; some fields are weird."""
    schema = TypeAdapter(shape).json_schema()
    return _of(schema, schema.get("$defs", {}))


def _of(schema: Any, known: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    if not isinstance(schema, dict) or depth > 6:
        return values()
    if "$ref" in schema:
        return _of(known[schema["$ref"].rpartition("/")[2]], known, depth + 1)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    if "anyOf" in schema:
        return st.one_of([_of(each, known, depth + 1) for each in schema["anyOf"]])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        fields = {name: _mostly(_of(each, known, depth + 1)) for name, each in schema["properties"].items()}
        required = {name: fields.pop(name) for name in schema.get("required", [])}
        return st.fixed_dictionaries(required, optional=fields)
    if kind == "object":
        return st.dictionaries(
            st.sampled_from(["a", "seed", "model", "x.y"]),
            _of(schema.get("additionalProperties"), known, depth + 1),
            max_size=3,
        )
    if kind == "array":
        return st.lists(_of(schema.get("items"), known, depth + 1), max_size=3)
    numbers: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(-2, 40),
        "number": st.floats(-2, 40) | st.sampled_from([float("nan"), float("inf")]),
        "string": st.text(max_size=5) | st.sampled_from(["demo", "base", "demo_harmful", "refusal_rate"]),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return numbers.get(str(kind), values())


def _mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 19).flatmap(lambda n: values() if n == 0 else usual)


@st.composite
def spoilt(draw: st.DrawFn, document: Any, *, huge: bool = True) -> Any:
    """Return a valid document with one to three things wrong in it."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            return draw(values(huge=huge))
        inside, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "wrap", "repeat"]))
        if how == "remove":
            del inside[key]
        elif how == "rename" and isinstance(inside, dict):
            inside[draw(st.sampled_from(["", "x", f"{key}s", "\ud800"]))] = inside.pop(key)
        elif how == "wrap":
            inside[key] = [inside[key]]
        elif how == "repeat" and isinstance(inside, list):
            inside.append(copy.deepcopy(inside[key]))
        else:
            inside[key] = draw(values(huge=huge))
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every value of a document as a mapping or list and its key there."""
    if isinstance(document, (dict, list)):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _places(document[key])


@st.composite
def written(draw: st.DrawFn, documents: st.SearchStrategy[Any], form: str) -> bytes:
    """Return documents as the bytes of a file, of which a few are damaged."""
    content = as_bytes(draw(documents), form)
    how, at = draw(st.integers(0, 14)), draw(st.integers(0, len(content)))
    if how == 0:
        return content[:at]
    if how == 1:
        return content[:at] + draw(st.sampled_from(DAMAGES)) + content[at:]
    return content


DAMAGES = [b"{", b"]", b"\xff", b"\0", b"\t", b"&a *a", b"'", b"\n- x", b'"a": 1, "a": 2,']


def as_bytes(document: Any, form: str) -> bytes:
    """Return a document as JSON, as lines of JSON, or as YAML, which cannot write all of it."""
    if form == "lines" and isinstance(document, list):
        return b"".join(_json(row, None).encode() + b"\n" for row in document)
    if form == "YAML":
        try:
            return yaml.safe_dump(document, allow_unicode=True).encode()
        except (RecursionError, ValueError, UnicodeError, yaml.YAMLError):
            pass  # as JSON, which YAML includes
    return (_json(document, 2) + "\n").encode()


def _json(document: Any, indent: int | None) -> str:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(document, indent=indent)
    finally:
        sys.set_int_max_str_digits(limit)
