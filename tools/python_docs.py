"""The reference page of Python: what `harness` and `harness.guide` offer, from their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import harness
import harness.guide
from harness.runs.run import Run as RunFiles
from tools.markdown import generated, table


def page() -> str:
    """Return the page: functions and classes of `harness`, what `harness.guide` has besides, and the files of a run."""
    introduction = (
        "What `import harness` offers; [Python](../python-api.md) is the guide, with examples. Importing the "
        "package loads no torch."
    )
    return generated("Python reference", introduction, *(_section(name, what) for name, what in _public()))


def _public() -> Iterator[tuple[str, Any]]:
    offered = [name for name in harness.__all__ if not name.startswith("_")]
    for name in offered:
        yield f"harness.{name}", getattr(harness, name)
    for name in _own(harness.guide):
        if name not in offered:
            yield f"harness.guide.{name}", getattr(harness.guide, name)
    yield "harness.runs.run.Run", RunFiles


def _own(module: ModuleType) -> list[str]:
    """Return the public functions and classes that a module itself defines."""
    return [
        name
        for name, what in vars(module).items()
        if not name.startswith("_") and getattr(what, "__module__", None) == module.__name__
    ]


def _section(name: str, what: Any) -> str:
    if inspect.isclass(what):
        return "\n\n".join(part for part in (f"## {name}", _text(what), _members(what)) if part)
    if not callable(what):
        return f"## {name}\n\n`{what!r}`"
    return f"## {name}\n\n```python\n{_signature(name.rpartition('.')[2], what)}\n```\n\n{_text(what)}"


def _members(kind: type) -> str:
    """Return the public methods and properties of a class, each with the first sentence of its docstring."""
    rows = []
    for name, member in vars(kind).items():
        target = getattr(member, "func", None) or getattr(member, "fget", None) or member
        target = getattr(target, "__func__", target)
        if name.startswith("_") or not inspect.isfunction(target):
            continue
        called = "" if target is not member and not isinstance(member, classmethod) else _arguments(target)
        first = inspect.cleandoc(target.__doc__ or "").partition("\n\n")[0]
        rows.append([f"`{name}{called}`", first])
    return table(["member", "meaning"], rows) if rows else ""


def _arguments(function: Any) -> str:
    parameters = [each for each in inspect.signature(function).parameters if each not in ("self", "cls")]
    return f"({', '.join(parameters)})"


def _signature(name: str, function: Any) -> str:
    """Return a definition with its annotations as they are written, one parameter per line where it is long."""
    signature = inspect.signature(function)
    written: list[str] = []
    for each in signature.parameters.values():
        if each.kind == each.KEYWORD_ONLY and "*" not in written:
            written.append("*")
        written.append(re.sub(r": '([^']*)'", r": \1", str(each)))
    parts = [part.replace("'", '"') for part in written]
    returned = inspect.formatannotation(signature.return_annotation).replace("'", "")
    line = f"def {name}({', '.join(parts)}) -> {returned}: ..."
    if len(line) <= 100:
        return line
    inner = "".join(f"    {part},\n" for part in parts)
    return f"def {name}(\n{inner}) -> {returned}: ..."


def _text(what: Any) -> str:
    """Return a Google-style docstring as Markdown: its sections' heads bold, their entries a list."""
    parts: list[str] = []
    section = ""
    for line in inspect.cleandoc(what.__doc__ or "").splitlines():
        head = re.fullmatch(r"(Args|Returns|Raises|Yields|Attributes):", line)
        entry = re.fullmatch(r" {4}(- )?(\S.*)", line)
        if head:
            section = head[1]
            parts.append(f"**{section}**\n")
        elif entry and (entry[1] or section not in ("Returns", "Yields")):
            parts.append(f"- {entry[2]}")
        else:
            parts.append(f"  {line.strip()}" if line.startswith("     ") else line.strip())
    return "\n".join(parts)
