"""One typed registry for every kind of named thing: judges, interventions, selection methods, objectives.

Entries may be given as "module:attribute", so that listing names imports nothing heavy.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

from harness.base.errors import BadInputError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects of one kind.

    Args:
        kind: the word for an entry in messages ("judge", "selection method").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T | str] = {}

    def add(self, name: str, entry: T | str) -> None:
        """Register an object, or the "module:attribute" to import it from.

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
            entry = self._entries[name] = cast("T", pkgutil.resolve_name(entry))
        return entry

    def in_order(self) -> list[str]:
        """Return the names in the order of their registration."""
        return list(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries
