"""One typed registry for every kind of named thing: judges, interventions, selection methods, objectives.

Entries may be given as "module:attribute", so that listing names imports nothing heavy. Further entries come from
plugins (harness/base/plugins.py); one that collides or does not work is named, and is in the way of nobody who does not
ask for it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

from harness.base.errors import BadInputError, nearest
from harness.base.plugins import Plugin, broken, plugins_of, say_once

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects of one kind.

    Args:
        kind: the word for an entry in messages ("judge", "selection method").
        group: the entry points that add to it; None for a registry without plugins.
        lacks: returns what a plugin's entry should have been, or None where it is as it should be.
    """

    def __init__(
        self, kind: str, group: str | None = None, lacks: Callable[[Any], str | None] = lambda entry: None
    ) -> None:
        self.kind = kind
        self.group = group
        self._lacks = lacks
        self._entries: dict[str, T | str] = {}
        self._loaded: dict[str, T] = {}

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
            BadInputError: no entry has this name (the nearest one is offered), or that of a plugin does not work.
        """
        if name in self.collisions and name not in self._entries:
            raise BadInputError(self.collisions[name])
        if name not in self._entries and name in self._plugins:
            return self._of_plugin(self._plugins[name])
        if name not in self._entries:
            raise BadInputError(f"unknown {self.kind} '{name}': {nearest(name, self)}")
        entry = self._entries[name]
        if isinstance(entry, str):
            entry = self._entries[name] = cast("T", pkgutil.resolve_name(entry))
        return entry

    def find(self, name: str) -> T | None:
        """Return the entry; None where there is none, or a plugin's that does not work, which is named on stderr."""
        if name not in self:
            return None
        try:
            return self.get(name)
        except BadInputError as error:
            if name in self._entries:
                raise
            say_once(f"left out: {error}")
            return None

    def working(self) -> Iterator[tuple[str, T]]:
        """Yield names and entries in order, less those of plugins that do not work, which are named on stderr."""
        for name in self.in_order():
            entry = self.find(name)
            if entry is not None:
                yield name, entry

    def in_order(self) -> list[str]:
        """Return the names in the order of their registration; those of plugins come last."""
        return [*self._entries, *self._plugins]

    def plugin(self, name: str) -> Plugin | None:
        """Return the plugin that an entry comes from; None for an entry of the harness."""
        return None if name in self._entries else self._plugins.get(name)

    @cached_property
    def collisions(self) -> dict[str, str]:
        """What is wrong with each name that a plugin shares with the harness or with another plugin."""
        by_name: dict[str, list[Plugin]] = {}
        for plugin in plugins_of(self.group) if self.group is not None else ():
            by_name.setdefault(plugin.name, []).append(plugin)
        said: dict[str, str] = {}
        for name, plugins in by_name.items():
            who = f"{self.kind} '{name}' of {' and of '.join(map(str, plugins))}"
            if name in self._entries:
                said[name] = f"{who} is called like the harness's own, which is used"
            elif len(plugins) > 1:
                said[name] = f"{who}: two have one name, and neither is used; uninstall one"
        for problem in said.values():
            say_once(problem)
        return said

    @cached_property
    def _plugins(self) -> dict[str, Plugin]:
        known = plugins_of(self.group) if self.group is not None else ()
        return {plugin.name: plugin for plugin in known if plugin.name not in self.collisions}

    def _of_plugin(self, plugin: Plugin) -> T:
        if plugin.name not in self._loaded:
            entry = plugin.load()
            try:
                expected = self._lacks(entry)
            except Exception as error:
                # A judge is made to look at it, which may fail in any way.
                raise broken(plugin, error) from error
            called = getattr(entry, "name", plugin.name)
            if (
                expected is None
                and isinstance(called, str)
                and not isinstance(entry, type)
                and called != plugin.name
            ):
                expected = f"the name '{plugin.name}', as its entry point has it, found '{called}'"
            if expected is not None:
                raise BadInputError(f"{self.kind} '{plugin.name}' of {plugin}: expected {expected}")
            self._loaded[plugin.name] = cast("T", entry)
        return self._loaded[plugin.name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._entries, *self._plugins}))

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._plugins


def not_callable(entry: object) -> str | None:
    """Return what was expected of a plugin's entry that is no function."""
    return None if callable(entry) else "a function"


def without(*names: str) -> Callable[[object], str | None]:
    """Return a function that says which of some attributes an entry lacks."""

    def lacks(entry: object) -> str | None:
        absent = next((name for name in names if not hasattr(entry, name)), None)
        return None if absent is None else f"an object with the attribute '{absent}'"

    return lacks
