"""Finding run folders, and reading what a leaderboard needs from each."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError
from harness.config import MarginsConfig, RunConfig, whole_settings
from harness.report.stars import Star, stars
from harness.runs.integrity import MadeAnewError
from harness.runs.layout import Layout, run_folders
from harness.runs.protocol import Protocol, protocols
from harness.runs.run import Run
from harness.runs.summary import Summary

# A table has columns for these; prompts and measures that differ make tables of their own.
_COLUMNS = {"model", "seed"}


@dataclass(frozen=True)
class Entry:
    """One finished run.

    Attributes:
        run: its folder.
        summary: its figures.
        protocols: how each task was asked.
        seed: of the run.
        settings: dotted names of settings to their values, of those that change a variant's figures.
        margins: the losses that were declared not to matter, which decide about stars.
        stars: its starred variants.
    """

    run: Run
    summary: Summary
    protocols: Mapping[str, Protocol]
    seed: int
    settings: Mapping[str, Any]
    margins: MarginsConfig
    stars: Mapping[str, Star]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A folder below the one that was named, which looks like a run and cannot be used."""

    path: Path
    reason: str


def read_entries(places: Sequence[Path]) -> tuple[list[Entry], list[LeftOut]]:
    """Read the runs that are named, and those in the folders that are named.

    Their summary, run.json and splits.json are compared with the manifest; other files are not read.

    A run that is being made anew is left out.

    Raises:
        BadInputError: a run that was named cannot be used otherwise, or a place holds no run.
    """
    entries: list[Entry] = []
    left_out: list[LeftOut] = []
    with _collecting_later():
        for place in places:
            if Layout(place).is_run():
                try:
                    entries.append(read_entry(place))
                except MadeAnewError as error:
                    left_out.append(LeftOut(place, str(error)))
                continue
            folders = list(run_folders(place))
            if not folders:
                raise BadInputError(f"{place}: neither the folder of a finished run nor a folder of runs")
            for folder in folders:
                try:
                    entries.append(read_entry(folder))
                except BadInputError as error:
                    left_out.append(LeftOut(folder, str(error)))
    return entries, left_out


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Hold the garbage collector back: of a thousand runs it would visit every record again and again for nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_entry(path: Path) -> Entry:
    """Read one run.

    Raises:
        BadInputError: it is not finished, or a file that is read is not what the run wrote.
    """
    run = Run(path)
    if not run.is_finished:
        raise BadInputError(f"{path}: the run is not finished: it has no {run.layout.summary.name}")
    run.verify(run.layout.summary, run.layout.run, run.layout.splits)
    config = run.record.config
    decisive = RunConfig.names_deciding("answers", "experts", "training") - _COLUMNS
    settings = {name: value for name, value in _flat(config, whole_settings()).items() if name in decisive}
    margins = MarginsConfig(**config.get("margins", {}))
    return Entry(
        run, run.summary, protocols(run), int(config.get("seed", 0)), settings, margins, stars(run.summary)
    )


def _flat(settings: Mapping[str, Any], whole: frozenset[str], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value and f"{prefix}{name}" not in whole:
            flat |= _flat(value, whole, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
