"""The leaderboard as plain data: every format shows the same rows, marks and stars."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from harness.base.content import content_folder
from harness.report.columns import Cell, Column, cells_of, columns_of
from harness.report.stars import SIGNS, Star, stars
from harness.runs.summary import Summary


@dataclass(frozen=True, slots=True)
class Row:
    """One variant; `cells` go with the leaderboard's columns and are empty when it was skipped."""

    variant: str
    cells: tuple[Cell, ...]
    star: Star | None
    skipped: str | None
    is_draw: bool

    @property
    def sign(self) -> str:
        """Its star as a character, "" without one."""
        return "" if self.star is None else SIGNS[self.star]


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Variants by rows, figures by columns: those of harmful tasks first, then of benign ones, then capability."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def rules(*gains: str) -> dict[str, str]:
    """Return how a leaderboard is read: `marks` and `best` of one run, `boards` of several.

    Args:
        gains: the metrics that gains rest on, on which `best` depends.
    """
    path = content_folder("reports") / "rules.yaml"
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    words, best = read.pop("gains"), read.pop("best")
    return {**read, "best": " ".join(best.format(**words[metric]) for metric in dict.fromkeys(gains))}


def build(summary: Summary) -> Leaderboard:
    """Return the leaderboard of one run."""
    columns, starred = columns_of([summary]), stars(summary)
    return Leaderboard(
        columns,
        tuple(
            Row(
                name,
                () if variant.skipped is not None else cells_of(summary, name, columns),
                starred.get(name),
                variant.skipped,
                variant.is_draw,
            )
            for name, variant in summary.variants.items()
        ),
    )
