"""JSON and YAML texts as Python values, or one line that says what is wrong with them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, first_line

if TYPE_CHECKING:
    import yaml

_DEEPEST = 100
"""Lists and mappings within one another; code that walks a value calls itself once for each."""
_MOST_NODES = 1_000_000
"""Values of a YAML document, those that it repeats by a reference counted each time."""


def parse_json(text: str, where: object, line: int = 1) -> Any:
    """Return what a JSON text holds.

    Args:
        text: the whole document.
        where: the beginning of the message, usually the file's path.
        line: the line of the file on which the text begins.

    Raises:
        BadInputError: it is not JSON, gives a key twice, is nested too deeply or has a number of thousands of digits.
    """
    try:
        content = json.loads(text, object_pairs_hook=_once_each)
    except _GivenTwiceError:
        problem = _key_given_twice(text, line)
    except json.JSONDecodeError as error:
        problem = f"line {line + error.lineno - 1}: {error.msg}"
    except RecursionError:
        problem = _TOO_DEEP
    except ValueError as error:  # Python reads no integer of more than 4,300 digits
        problem = f"line {line}: {_of_a_number(error)}"
    else:
        if _HALF.search(text) and _has_half(content):
            raise BadInputError(f"{where}: not valid JSON: {_HALF_A_CHARACTER}")
        # As many brackets as that have to be open at once.
        if text.count("[") + text.count("{") <= _DEEPEST or not _is_too_deep(content):
            return content
        problem = _TOO_DEEP
    raise BadInputError(f"{where}: not valid JSON: {problem}")


class _GivenTwiceError(Exception):
    """An object has a key twice, of which `json` would keep the last."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise _GivenTwiceError
    return content


_KEY_OR_BRACKET = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}]')


def _key_given_twice(text: str, line: int) -> str:
    """Return the first key that an object of a JSON text has twice, with both lines."""
    objects: list[dict[str, int]] = []
    for match in _KEY_OR_BRACKET.finditer(text):
        if match[0] == "{":
            objects.append({})
        elif match[0] == "}":
            objects.pop()
        elif match[2]:
            key, at = json.loads(match[1]), line + text.count("\n", 0, match.start())
            if key in objects[-1]:
                return _twice(key, objects[-1][key], at)
            objects[-1][key] = at
    raise AssertionError("no key is given twice")


def _twice(key: str, first: int, second: int) -> str:
    return f"'{key}' is given twice, on line {first} and on line {second}"


_TOO_DEEP = f"nested too deeply, expected at most {_DEEPEST} levels"


# The escape of a surrogate: half of a character, unless the other half is beside it.
_HALF = re.compile(r"\\[uU](?:0000)?[dD][89a-fA-F]")
_HALF_A_CHARACTER = "a text has a lone surrogate, such as \\ud800, which is no character"


def _has_half(content: Any) -> bool:
    try:
        json.dumps(content, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return True
    except (TypeError, ValueError):  # keys that JSON does not have
        return any("\ud800" <= character <= "\udfff" for character in repr(content))
    return False


def _of_a_number(error: ValueError) -> str:
    return "a number has too many digits" if "integer string conversion" in str(error) else first_line(error)


def _is_too_deep(content: Any) -> bool:
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def parse_yaml(text: str, where: object, loader: type[yaml.SafeLoader] | None = None) -> Any:
    """Return what a YAML text holds.

    Args:
        text: the whole document.
        where: the beginning of the message, usually the file's path.
        loader: for YAML with more than the standard tags.

    Raises:
        BadInputError: it is not YAML, gives a key twice, is nested too deeply or repeats itself too often.
    """
    import yaml

    try:
        opened = (loader or yaml.SafeLoader)(text)
        try:
            node = opened.get_single_node()
            if node is None:
                return None
            problem = _why_refused(node)
            if problem is None:
                content = opened.construct_document(node)
                if not _HALF.search(text) or not _has_half(content):
                    return content
                problem = _HALF_A_CHARACTER
        finally:
            opened.dispose()
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        problem = f"{line}{error.problem}"
    except yaml.YAMLError as error:
        problem = first_line(error)
    except RecursionError:
        problem = _TOO_DEEP
    except (ValueError, OverflowError) as error:  # dates that no calendar has, numbers of thousands of digits
        problem = _of_a_number(error) if isinstance(error, ValueError) else first_line(error)
    raise BadInputError(f"{where}: not valid YAML: {problem}")


def _why_refused(root: yaml.Node) -> str | None:
    """Return what is wrong with a document that is YAML otherwise."""
    known: dict[int, tuple[int, int]] = {}
    problems: list[str] = []

    def measured(node: yaml.Node, above: frozenset[int]) -> tuple[int, int]:
        """Return how many values a node has and how deep they are nested, each reference written out."""
        if id(node) in known or not isinstance(node.value, list):
            return known.get(id(node), (1, 0))
        line = f"line {node.start_mark.line + 1}: "
        if id(node) in above:
            problems.append(f"{line}contains itself")
            return 1, 0
        if (twice := _given_twice(node)) is not None:
            problems.append(twice)
        inside = [each for part in node.value for each in (part if isinstance(part, tuple) else (part,))]
        parts = [measured(each, above | {id(node)}) for each in inside]
        size = 1 + sum(size for size, _ in parts)
        depth = 1 + max((depth for _, depth in parts), default=0)
        if size > _MOST_NODES:
            problems.append(f"{line}has more than {_MOST_NODES:,} values by references to its parts")
        if depth > _DEEPEST:
            problems.append(_TOO_DEEP)
        known[id(node)] = size, depth
        return size, depth

    measured(root, frozenset())
    return problems[0] if problems else None


def _given_twice(node: yaml.Node) -> str | None:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return None
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        line, name = key.start_mark.line + 1, (key.tag, key.value)
        if name in lines:
            return _twice(key.value, lines[name], line)
        lines[name] = line
    return None
