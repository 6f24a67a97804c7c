"""Selection: from the expert table to the experts that an intervention acts on.

A method is a small function that gives each row of one phase's table a score; the highest are selected. It is
registered under the name that `--set selection.method=NAME` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.base.errors import BadInputError
from harness.base.registry import Registry, not_callable
from harness.models.moe import Expert, by_layer

if TYPE_CHECKING:
    import pandas as pd

Match = Literal["use", "layer"]

Method = Callable[["pd.DataFrame"], "pd.Series[float]"]

METHODS: Registry[Method] = Registry("selection method", "harness.selection_methods", not_callable)

# What takes experts without a score that tells them from others.
ALL, LEAST_USED = "all", "least used"

# Scores that have no direction to turn round, or already have it.
_UNSIGNED = ("stability", "gradient", "harmful_use", "random")


class Uncertainty(NamedTuple):
    """The columns of the expert table that say how sure a score is."""

    low: str
    high: str
    q_value: str


# The methods whose score has an interval and a q-value of its own.
_UNCERTAINTY = {
    "risk_diff": Uncertainty("low", "high", "q_value"),
    "topic_adjusted": Uncertainty("topic_low", "topic_high", "topic_q_value"),
}


def uncertainty_of(method: str) -> Uncertainty | None:
    """Return the columns with the interval and q-value of a method's own score; None where it has none."""
    return _UNCERTAINTY.get(method)


def score_of(method: str, rows: pd.DataFrame) -> pd.Series[float] | None:
    """Return a method's score of some rows of the expert table.

    None for a method that is not known here, and for `random` where the table has no such scores.
    """
    score = METHODS.find(method) if method != "random" or "random" in rows else None
    return None if score is None else score(rows)


def _present(table: pd.DataFrame, column: str, how: str) -> pd.Series[float]:
    """Return a column that not every table has.

    Raises:
        BadInputError: it is missing or empty; says how to come by it.
    """
    if column not in table or table[column].isna().all():
        raise BadInputError(f"the expert table has no '{column}' in this phase: {how}")
    return table[column]


# Each scores by one column of the expert table, which says what they are for; not every table has every column.
for _method, _column, _how in (
    ("risk_diff", "risk_diff", "select again"),
    ("topic_adjusted", "topic_adjusted", "name control prompts with --control"),
    ("gate_weighted", "gate_diff", "capture again"),
    ("presence", "presence_diff", "select again"),
    ("per_prompt", "prompt_diff", "select again"),
    ("length_cut", "cut_diff", "capture with --record tokens, and select on phase generation or all"),
    ("log_odds", "log_odds", "select again"),
    # Equal shares go by risk difference.
    ("stability", "stability", "select again"),
    # The size of the refusal loss's gradient on the expert, the main alternative to counting.
    ("gradient", "gradient", "select with --method gradient, which computes it"),
    # What harmful prompts use most, whatever benign ones use.
    ("harmful_use", "a_unsafe_n", "select again"),
    # Own compliant answers against refusals of the same prompts.
    (
        "paired",
        "paired",
        "base complied with too few harmful identify prompts, or select with --method paired",
    ),
    # Drawn from the run's seed.
    ("random", "random", "select with the run's own table"),
):
    METHODS.add(_method, partial(_present, column=_column, how=_how))


@dataclass(frozen=True)
class Limits:
    """How many of the scored experts to keep; limits given together all hold.

    Attributes:
        top_k: at most this many in all.
        threshold: scores of at least this.
        per_layer: at most this many of each layer.
        top_p: of each layer, the fewest that hold this share of its positive scores.
        max_q: a q-value of at most this.
    """

    top_k: int | None = None
    threshold: float | None = None
    per_layer: int | None = None
    top_p: float | None = None
    max_q: float | None = None


@dataclass(frozen=True)
class ExpertSelection:
    """The experts that a variant acts on, and how they were found.

    Attributes:
        method: how they were chosen.
        phase: the tokens that they were scored on.
        experts: the highest score first.
        match: what a random draw has in common with the selection beside the number per layer; None for no draw.
    """

    method: str
    phase: str
    experts: tuple[Expert, ...]
    match: Match | None = None

    def by_layer(self) -> dict[int, list[int]]:
        """Return the sorted expert numbers of each layer, layers in order."""
        return by_layer(self.experts)


def select_experts(
    table: pd.DataFrame,
    *,
    phase: str,
    limits: Limits,
    method: str = "risk_diff",
    direction: Literal["unsafe", "safe"] = "unsafe",
) -> ExpertSelection:
    """Select the experts with the highest score in a phase.

    Args:
        table: from `statistical_table`, or `expert_table` for methods that need no more.
        phase: which rows to look at.
        limits: how many to keep.
        method: how a row is scored.
        direction: "safe" turns the score round: experts that benign prompts use more.

    Raises:
        BadInputError: no limit is given, more experts are asked for than exist, or none is left.
    """
    scores = METHODS.get(method)
    if limits == Limits():
        raise BadInputError("selection: give top_k, threshold, per_layer, top_p or max_q, or several of them")
    rows = table[table["phase"] == phase]
    if rows.empty:
        raise BadInputError(
            f"the expert table has no phase '{phase}': it has {', '.join(table['phase'].unique())}"
        )
    if limits.top_k is not None and not 1 <= limits.top_k <= len(rows):
        raise BadInputError(
            f"selection.top_k = {limits.top_k}: expected 1 to {len(rows)}, the experts of the model"
        )
    sign = -1.0 if direction == "safe" and method not in _UNSIGNED else 1.0
    score = sign * scores(rows)
    # Stability has many equal scores; the risk difference decides between those, the place between the rest.
    scored = (
        rows.assign(score=score, tie=sign * rows["risk_diff"])
        .dropna(subset="score")
        .sort_values(["score", "tie", "layer", "expert"], ascending=[False, False, True, True], kind="stable")
    )
    kept = _within(scored, limits, method)
    experts = tuple(map(Expert, kept["layer"].tolist(), kept["expert"].tolist()))
    return ExpertSelection(method, phase, experts)


def _within(scored: pd.DataFrame, limits: Limits, method: str) -> pd.DataFrame:
    """Apply the limits one after another; rows are ordered, the highest score first."""
    kept = scored
    if limits.threshold is not None:
        kept = kept[kept["score"] >= limits.threshold]
        _require(
            kept,
            f"selection.threshold = {limits.threshold}: the highest {method} is {scored['score'].max():.4f}",
        )
    if limits.max_q is not None:
        column = _UNCERTAINTY.get(method, _UNCERTAINTY["risk_diff"]).q_value
        q_values = _present(kept, column, "select with the run's own table")
        kept = kept[q_values <= limits.max_q]
        _require(kept, f"selection.max_q = {limits.max_q}: the lowest {column} is {q_values.min():.3g}")
    if limits.top_p is not None:
        positive = kept["score"].clip(lower=0.0)
        by_layer = positive.groupby(kept["layer"])
        # What the better ones hold already: the expert that crosses the share is still needed.
        before = (by_layer.cumsum() - positive) / by_layer.transform("sum")
        kept = kept[(positive > 0) & (before < limits.top_p)]
        _require(kept, f"selection.top_p = {limits.top_p}: no {method} is above zero")
    if limits.per_layer is not None:
        kept = kept.groupby("layer", sort=False).head(limits.per_layer)
    return kept if limits.top_k is None else kept.head(limits.top_k)


def _require(kept: pd.DataFrame, limit_and_found: str) -> None:
    if kept.empty:
        raise BadInputError(f"no expert is left by {limit_and_found}")
