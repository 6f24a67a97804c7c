"""`@stage`: a piece of a run's work that is done once, and again when its inputs or its files have changed.

A stage has a name, the files that it writes, and a fingerprint of all that can change what is in them. A call is
skipped where run.json records it as finished with this fingerprint and the files have the recorded hashes.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol

from harness.base.progress import pass_over, piece, say

if TYPE_CHECKING:
    from harness.runs.run_folder import RunFolder

P = ParamSpec("P")


class HasFolder(Protocol):
    """What a stage is given first."""

    @property
    def folder(self) -> RunFolder:
        """Where the run keeps what it makes."""


@dataclass(eq=False)
class Stage(Generic[P]):
    """A function that is called only where its files are not there yet; see `stage`."""

    _work: Callable[P, object]
    _name: str
    _writes: tuple[str, ...]
    _key: Callable[P, str]
    _keeps: tuple[str, ...]
    _again: Callable[P, bool] | None

    def __post_init__(self) -> None:
        update_wrapper(self, self._work)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Do the work where it is not done."""
        folder, given = self._given(*args, **kwargs)
        name, key = self._name.format(**given), self._key(*args, **kwargs)
        known = folder.was_done(name, key)
        damage = folder.damage(name, self._written(folder, given)) if known else None
        if damage is not None:
            say(f"{damage}: making it again")
        if not known or damage is not None or (self._again is not None and self._again(*args, **kwargs)):
            with piece(name), folder.stage(name, key, self._written(folder, given)):
                self._work(*args, **kwargs)
        else:
            pass_over(name)
        # Only now: without these and without the record, a killed run would start the work over.
        for pattern in self._keeps:
            _remove(folder.path / pattern.format(**given))

    def is_done(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Say whether a call would do nothing."""
        folder, given = self._given(*args, **kwargs)
        written = self._written(folder, given)
        return folder.is_done(self._name.format(**given), self._key(*args, **kwargs), written)

    def fingerprint(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the fingerprint of what the work depends on."""
        return self._key(*args, **kwargs)

    def _given(self, *args: P.args, **kwargs: P.kwargs) -> tuple[RunFolder, dict[str, Any]]:
        given = inspect.signature(self._work).bind(*args, **kwargs).arguments
        return next(iter(given.values())).folder, given

    def _written(self, folder: RunFolder, given: dict[str, Any]) -> Iterator[Path]:
        for pattern in self._writes:
            path = folder.path / pattern.format(**given)
            if not pattern.endswith("/") or path.is_dir():
                yield path


def stage(
    name: str,
    writes: str | tuple[str, ...],
    key: Callable[P, str],
    *,
    keeps: str | tuple[str, ...] = (),
    again: Callable[P, bool] | None = None,
) -> Callable[[Callable[P, None]], Stage[P]]:
    """Return a decorator that makes a stage of a function; its first argument is the run (`HasFolder`).

    Args:
        name: of the stage in run.json, with the function's arguments in braces: "drift {made.name}".
        writes: the files that it writes, within the run folder; "folder/" means all files of a folder
            that it may write.
        key: returns the fingerprint of its inputs, of the same arguments.
        keeps: what it keeps of unfinished work, removed once the stage is recorded.
        again: whether to repeat it on each call, from the same arguments; its files are checked all the same.
    """

    def decorate(work: Callable[P, None]) -> Stage[P]:
        return Stage(work, name, _tuple(writes), key, _tuple(keeps), again)

    return decorate


def _tuple(patterns: str | tuple[str, ...]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else patterns


def _remove(path: Path) -> None:
    """Remove a file or folder, and what a killed process was about to rename to it."""
    if path.is_dir():
        shutil.rmtree(path)
    for file in [path, *path.parent.glob(f".{path.name}.*.tmp")]:
        file.unlink(missing_ok=True)
