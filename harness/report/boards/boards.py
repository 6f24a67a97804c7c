"""Runs side by side: those whose figures can be compared share a table, seeds of one configuration share a row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from harness.base.errors import BadInputError, nearest
from harness.config import RunConfig
from harness.interventions.spec import recorded
from harness.report.boards.entries import Entry
from harness.report.charts.drawing import styles_of
from harness.report.columns import Cell, Column, cells_of, columns_of, gain_columns
from harness.report.stars import Star
from harness.runs.protocol import Protocol
from harness.runs.rows import BASE, HARMFUL

GroupBy = Literal["model", "variant", "none"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One task of one row.

    Attributes:
        value: the mean over seeds.
        spread: their standard deviation; None for one seed.
        low: of one seed, the lower end of its 95 % interval; of several, the lowest.
        high: likewise.
        n: how many seeds.
        above: in how many the variant is significantly above its own run's base.
        below: in how many below.
    """

    value: float
    spread: float | None
    low: float | None
    high: float | None
    n: int
    above: int
    below: int


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A variant of a model under one configuration, over its seeds.

    Attributes:
        model: its name.
        variant: its name.
        settings: those in which runs differ.
        seeds: of its runs.
        runs: their ids.
        folders: their folders.
        date: the day on which the latest was started.
        figures: by the table's columns.
        skipped: why it was evaluated in no run.
        star: where every run gives it one, the lesser of them.
        style: how charts draw it: main (the intervention of its run), base, random or other.
    """

    model: str
    variant: str
    settings: str
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    folders: tuple[Path, ...]
    date: str
    figures: tuple[Figure | None, ...]
    skipped: str | None
    star: Star | None
    style: str


@dataclass(frozen=True, slots=True)
class Board:
    """Rows that can be compared.

    Attributes:
        columns: the figures.
        gain: the metric that gains rest on.
        gains: its columns.
        rows: the variants.
        runs: how many runs.
        apart: why they are not in the first table; None for the first.
    """

    columns: tuple[Column, ...]
    gain: str
    gains: tuple[Column, ...]
    rows: tuple[BoardRow, ...]
    runs: int
    apart: str | None


def build_boards(
    entries: Sequence[Entry], group_by: GroupBy = "model", sort: str | None = None
) -> list[Board]:
    """Return the tables, the one with the most runs first.

    Args:
        entries: the runs.
        group_by: rows of one model, or of one variant, stand together.
        sort: a task; rows with the best figure come first. By default the figure that gains rest on decides, as
            its mean over the harmful tasks.

    Raises:
        BadInputError: no run has the task to sort by.
    """
    tasks = sorted({task for entry in entries for task in entry.protocols})
    if sort is not None and sort not in tasks:
        raise BadInputError(f"--sort: unknown task '{sort}', {nearest(sort, tasks)}")
    comparable: dict[tuple[tuple[tuple[str, Protocol], ...], str, _Gain], list[Entry]] = {}
    for entry in entries:
        asked = tuple(sorted(entry.protocols.items()))
        comparable.setdefault((asked, entry.margins.model_dump_json(), _gain(entry)), []).append(entry)
    ordered = sorted(comparable.values(), key=lambda group: (-len(group), str(group[0].run.path)))
    return [
        _board(group, None if index == 0 else _why(ordered[0][0], group[0]), group_by, sort)
        for index, group in enumerate(ordered)
    ]


def _why(first: Entry, other: Entry) -> str:
    """Return why two runs share no table."""
    for task in sorted(first.protocols.keys() | other.protocols.keys()):
        before, after = first.protocols.get(task), other.protocols.get(task)
        if before is None or after is None:
            return f"{'also' if before is None else 'no'} {task}"
        different = after.difference(before)
        if different is not None:
            return f"{task}: another {different}"
    before_margins, after_margins = first.margins.model_dump(), other.margins.model_dump()
    for name, margin in after_margins.items():
        if margin != before_margins[name]:
            return f"margin {name} {_short(margin)}, not {_short(before_margins[name])}"
    ours, theirs = _gain(other), _gain(first)
    if ours[:2] != theirs[:2]:
        return f"gains by {ours.in_words}, not by {theirs.in_words}"
    return "the same protocol" if ours == theirs else f"another version of judge {ours.judge}"


class _Gain(NamedTuple):
    """The metric that gains rest on and its judge, that of refusal being part of the protocol."""

    metric: str
    judge: str | None = None
    fingerprint: str | None = None

    @property
    def in_words(self) -> str:
        return "refusals" if self.judge is None else f"harmful answers ({self.judge})"


def _gain(entry: Entry) -> _Gain:
    summary = entry.summary
    judge = summary.primary_of("harmfulness") if summary.gain_metric == HARMFUL else None
    return _Gain(summary.gain_metric, judge, summary.judge_fingerprint(judge))


def _board(entries: Sequence[Entry], apart: str | None, group_by: GroupBy, sort: str | None) -> Board:
    columns = columns_of([entry.summary for entry in entries])
    gains = tuple(gain_columns(entries[0].summary, columns))
    varying = _varying(entries)
    grouped: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in entries:
        for variant in entry.summary.variants:
            model = entry.summary.model
            own = _settings_of(entry.summary.variants[variant].specification, variant)
            settings = ", ".join(
                f"{short}={_short(value)}"
                for name, short in varying.items()
                if name in own and (value := entry.settings.get(name)) is not None
            )
            grouped.setdefault((model.name, model.fingerprint, variant, settings), []).append(entry)
    rows = [
        _row(model, variant, settings, group, columns)
        for (model, _, variant, settings), group in grouped.items()
    ]
    asked = [column for column in columns if column.asked == sort]
    by_gain = gains if sort is None else [column for column in asked if column in gains]
    ranked = by_gain or [column for column in asked if column.decides]
    rows.sort(key=lambda row: _order(row, columns, ranked, group_by))
    return Board(columns, entries[0].summary.gain_metric, gains, tuple(rows), len(entries), apart)


def _settings_of(specification: Mapping[str, Any], variant: str) -> frozenset[str]:
    """Return the names of the settings that can change a variant's figures."""
    spec = recorded(specification)
    if spec is not None:
        return RunConfig.names_deciding(*spec.depends_on) - spec.replaced_settings
    return RunConfig.names_deciding("answers", *(() if variant == BASE else ("experts", "training")))


def _row(
    model: str, variant: str, settings: str, entries: Sequence[Entry], columns: Sequence[Column]
) -> BoardRow:
    evaluated = [entry for entry in entries if entry.summary.variants[variant].skipped is None]
    # A seed counts once: of several runs of it, such as base's in runs of other training, the latest.
    by_seed = {entry.seed: entry for entry in sorted(evaluated, key=lambda entry: entry.summary.created)}
    cells = [cells_of(entry.summary, variant, columns) for _, entry in sorted(by_seed.items())]
    skipped = entries[0].summary.variants[variant].skipped if not evaluated else None
    return BoardRow(
        model,
        variant,
        settings,
        tuple(sorted({entry.seed for entry in entries})),
        tuple(entry.summary.run_id for entry in entries),
        tuple(entry.run.path for entry in entries),
        max(entry.summary.created for entry in entries)[:10],
        tuple(_figure([row[index] for row in cells]) for index in range(len(columns))),
        skipped,
        _star([entry.stars.get(variant) for entry in evaluated]),
        styles_of(entries[0].summary).get(variant, "other"),
    )


def _star(given: Sequence[Star | None]) -> Star | None:
    if not given or None in given:
        return None
    return "full" if all(star == "full" for star in given) else "hollow"


def _figure(cells: Sequence[Cell]) -> Figure | None:
    known = [cell for cell in cells if cell.value is not None]
    values = [cell.value for cell in known if cell.value is not None]
    if not values:
        return None
    above, below = (sum(cell.effect == effect for cell in known) for effect in ("higher", "lower"))
    if len(values) == 1:
        return Figure(values[0], None, known[0].low, known[0].high, 1, above, below)
    return Figure(fmean(values), stdev(values), min(values), max(values), len(values), above, below)


def _varying(entries: Sequence[Entry]) -> dict[str, str]:
    """Return the settings on which these runs differ, with a short name for each."""
    names = sorted({name for entry in entries for name in entry.settings})
    differ = [
        name
        for name in names
        if len({json.dumps(entry.settings.get(name), sort_keys=True) for entry in entries}) > 1
    ]
    last = [name.rpartition(".")[2] for name in differ]
    return {name: short if last.count(short) == 1 else name for name, short in zip(differ, last, strict=True)}


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return "+".join(
            f"{name}:{part:g}" if isinstance(part, float) else f"{name}:{_short(part)}"
            for name, part in value.items()
        )
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _order(
    row: BoardRow, columns: Sequence[Column], ranked: Sequence[Column], group_by: GroupBy
) -> tuple[str, float, bool, str]:
    wanted = [
        (figure.value if column.better == "higher" else -figure.value)
        for column, figure in zip(columns, row.figures, strict=True)
        if figure is not None and column in ranked and column.better
    ]
    group = {"model": row.model, "variant": row.variant, "none": ""}[group_by]
    mean = -fmean(wanted) if wanted else float("inf")
    return group, mean, row.style == "random", f"{row.model} {row.variant} {row.settings}"
