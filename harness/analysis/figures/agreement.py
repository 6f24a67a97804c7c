"""Scores of the prompt against scores of the answer."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from harness.analysis.agreement import Agreement
from harness.analysis.figures.page import BENIGN, HARMFUL, MANY_MARKS, QUIET, THIRD, page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scatter(compared: Agreement, selected: Collection[tuple[int, int]], subtitle: str) -> Figure:
    """Draw each expert's risk difference in the prompt against that in the answer.

    Args:
        compared: both phases' scores.
        selected: (layer, expert) pairs to ring.
        subtitle: of what.
    """
    figure = page(8.4, 5.0, "Do the same experts stand out in the prompt and in the answer?", subtitle)
    axes = figure.add_subplot()
    scores, k = compared.scores, compared.k
    first, second = scores["prompt_top"], scores["generation_top"]
    many = len(scores) > MANY_MARKS
    groups = (
        (f"in neither top {k}", ~first & ~second, QUIET),
        (f"top {k} in the prompt only", first & ~second, BENIGN),
        (f"top {k} in the answer only", second & ~first, THIRD),
        (f"top {k} in both", first & second, HARMFUL),
    )
    for label, rows, colour in groups:
        part = scores[rows]
        axes.scatter(
            100 * part["prompt"],
            100 * part["generation"],
            s=14 if many else 26,
            color=colour,
            alpha=0.45 if colour == QUIET else 0.95,
            linewidths=0,
            rasterized=many and colour == QUIET,
            label=f"{label}: {len(part)}",
        )
    chosen = set(selected)
    is_chosen = [pair in chosen for pair in zip(scores["layer"], scores["expert"], strict=True)]
    if any(is_chosen):
        part = scores[is_chosen]
        axes.scatter(
            100 * part["prompt"],
            100 * part["generation"],
            s=55 if many else 75,
            facecolors="none",
            edgecolors="black",
            linewidths=1.1,
            label=f"selected: {len(part)}",
        )
    axes.axhline(0, color="#5f6368", lw=0.8, zorder=0)
    axes.axvline(0, color="#5f6368", lw=0.8, zorder=0)
    axes.grid()
    axes.set_xlabel("risk difference in the prompt (tokens in 100)")
    axes.set_ylabel("risk difference in the answer (tokens in 100)")
    rank = (
        "no rank correlation (equal scores)"
        if compared.spearman is None
        else f"Spearman {compared.spearman:.2f}"
    )
    axes.set_title(
        f"{rank} · both top {k} share {compared.overlap} experts, by chance {compared.by_chance:.1f} on average"
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure
