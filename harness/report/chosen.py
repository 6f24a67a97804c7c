"""What a run shows of the chosen experts: as one row each, and as what reports/chosen.txt.j2 words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.report.words import interval

if TYPE_CHECKING:
    from harness.metrics.interval import Interval
    from harness.runs.summary import HeldOutSummary, SelectedExpert, SelectionSummary, Summary, TopicSummary

_SURE = 0.05
_ON_OTHERS = "on prompts that did not choose it"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What holds of the chosen experts.

    Attributes:
        n: how many there are.
        wanted_less: whether experts were wanted that harmful prompts use less.
        level: the q-value up to which one is counted as used more, or less, beyond chance.
        sure: how many have such a q-value of the method's own score; None where the method has none.
        against: the tasks that this score compares with, where they are not all benign ones.
        held_out: what test prompts say of them.
        shown: how many have an interval on the wanted side of 0 there.
        topic: how much of the difference there is topic.
    """

    n: int
    wanted_less: bool
    level: float
    sure: int | None
    against: list[str]
    held_out: HeldOutSummary | None
    shown: int
    topic: TopicSummary | None

    def more(self, difference: float) -> str:
        """Return a difference of two fractions in words."""
        return f"{_points(abs(difference))} points {'less' if difference < 0 else 'more'}"

    def ends(self, found: Interval) -> str:
        """Return the ends of a difference's interval, in points."""
        return interval(found.low, found.high, _points)


def chosen_experts(summary: Summary) -> Chosen | None:
    """Return what holds of the chosen experts; None where the run chose none."""
    selection = summary.selection
    if selection is None or not selection.experts:
        return None
    q_values = [expert.q_value for expert in selection.experts if expert.q_value is not None]
    topic = selection.topic
    return Chosen(
        n=len(selection.experts),
        wanted_less=selection.direction == "safe",
        level=_SURE,
        sure=sum(q <= _SURE for q in q_values) if len(q_values) == len(selection.experts) else None,
        against=["control prompts on the same topics"] if selection.method == "topic_adjusted" else [],
        held_out=selection.held_out,
        shown=sum(_is_shown(selection, expert) for expert in selection.experts),
        # Summaries of earlier versions compared other prompts on either side.
        topic=topic if topic is not None and topic.harmful else None,
    )


def _points(fraction: float) -> str:
    return f"{fraction * 100:z.2f}"


def _is_shown(selection: SelectionSummary, expert: SelectedExpert) -> bool:
    found = expert.held_out
    return found is not None and (found.high < 0 if selection.direction == "safe" else found.low > 0)


def experts(summary: Summary) -> list[dict[str, str]]:
    """Return the chosen experts, the highest score first; without the columns that are empty for all of them."""
    selection = summary.selection
    if selection is None:
        return []
    rows = [_row(selection, expert) for expert in selection.experts]
    filled = {name for row in rows for name, text in row.items() if text}
    return [{name: text for name, text in row.items() if name in filled} for row in rows]


def _row(selection: SelectionSummary, expert: SelectedExpert) -> dict[str, str]:
    score, others = expert.score, expert.held_out
    # Some scores are below 1e-4 and would be shown as 0.
    own = (
        {} if selection.method == "risk_diff" else {selection.method: "" if score is None else f"{score:.4g}"}
    )
    return {
        "layer": str(expert.layer),
        "expert": str(expert.expert),
        "risk difference": f"{expert.risk_diff:+.4f}",
        **own,
        "95% interval": interval(expert.low, expert.high, "{:+.4f}".format),
        "q": "" if expert.q_value is None else f"{expert.q_value:.2g}",
        _ON_OTHERS: ""
        if others is None
        else f"{others.value:+.4f} ({interval(others.low, others.high, '{:+.4f}'.format)})",
    }
