"""One typed registry for every kind of named thing: judges, interventions, selection methods, objectives.

Entries may be given as "module:attribute", so that listing names imports nothing heavy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

from harness.base.errors import BadInputError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects of one kind.

    Args:
        kind: what an entry is, as it should read in messages ("judge", "selection method").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T | str] = {}

    def add(self, name: str, entry: T | str) -> None:
        """Register an object, or the "module:attribute" where it will be found.

        Raises:
            ValueError: another entry already has this name.
        """
        if self._entries.get(name, entry) != entry:
            raise ValueError(f"two {self.kind} entries are called {name!r}")
        self._entries[name] = entry

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates."""

        def decorate(entry: T) -> T:
            self.add(name, entry)
            return entry

        return decorate

    def get(self, name: str) -> T:
        """Return the entry.

        Raises:
            BadInputError: no entry has this name; the nearest one is offered.
        """
        if name not in self._entries:
            raise BadInputError(f"unknown {self.kind} '{name}': {nearest(name, self._entries)}")
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = cast("T", _load(module, attribute))
            self._entries[name] = entry
        return entry

    def in_order(self) -> list[str]:
        """Return the names in the order that they were registered in."""
        return list(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def _load(module: str, attribute: str) -> Any:
    return getattr(importlib.import_module(module), attribute)
