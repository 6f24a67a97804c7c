"""The experts that a run acts on: how they were chosen, and what they do on prompts that did not choose them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from harness.base.errors import BadInputError
from harness.data.duplicates import near_duplicate_groups
from harness.data.splits import pair_links
from harness.experts.controls import match
from harness.experts.held_out import FEWEST_GROUPS, Estimate, Side, Topic, difference_in_use, topic
from harness.experts.select import score_of, uncertainty_of
from harness.metrics.interval import Interval
from harness.routing.counts import PHASES, Phase, RoutingCounts, join, summed
from harness.runs.captured import direction_of
from harness.runs.rows import BASE
from harness.runs.summary import HeldOutSummary, SelectedExpert, SelectionSummary, TopicSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from harness.runs.evidence import Evidence
    from harness.runs.records import Selection


class _Prompts(NamedTuple):
    """Test prompts of the tasks that chose experts: what each is, and its use of the chosen experts."""

    tasks: list[str]
    task: np.ndarray
    is_harmful: np.ndarray
    pairs: list[str | None]
    all: Side

    def of(self, rows: np.ndarray) -> Side:
        return Side(*(values[rows] for values in self.all))


def selection_summary(run: Evidence) -> SelectionSummary | None:
    """Describe the experts that were chosen for the intervention; None where the run did not compare all experts."""
    name = run.record.intervention
    selection = None if name is None else run.selection(name)
    if selection is None or not selection.is_choice or not run.layout.experts.is_file():
        return None
    table = run.experts()
    rows = table[table["phase"] == selection.phase].set_index(["layer", "expert"], drop=False)
    if rows.empty:
        return None
    unknown = [expert for expert in selection.experts if expert not in rows.index]
    if unknown:
        layer, expert = unknown[0]
        raise BadInputError(
            f"{run.layout.variant(str(name)).selection}: layer {layer}, expert {expert}: "
            f"{run.layout.experts.name} has no such expert"
        )
    direction = direction_of(run)
    chosen = rows.loc[list(selection.experts)]
    prompts = _test_prompts(run, selection)
    estimate = None if prompts is None else _difference(prompts)
    held_out = [None] * len(chosen) if estimate is None else _intervals(estimate)
    return SelectionSummary(
        method=str(selection.method),
        phase=str(selection.phase),
        direction=direction,
        experts=[
            SelectedExpert(**expert, held_out=interval)
            for expert, interval in zip(_experts(chosen, str(selection.method)), held_out, strict=True)
        ],
        held_out=None if prompts is None or estimate is None else _held_out(prompts),
        topic=None if prompts is None or estimate is None else _topic(run, prompts, direction),
    )


def _experts(chosen: pd.DataFrame, method: str) -> list[dict[str, Any]]:
    """Return what the expert table says of chosen experts, with the interval and q-value of the method's own score."""
    own, scores = uncertainty_of(method), score_of(method, chosen)
    columns = {"layer": "layer", "expert": "expert", "risk_diff": "risk_diff"}
    columns |= (
        {} if own is None else {name: column for name, column in own._asdict().items() if column in chosen}
    )
    absent = dict.fromkeys(("low", "high", "q_value", "score"))
    rows = [
        absent | {name: _number(row[column]) for name, column in columns.items()}
        for row in chosen.to_dict("records")
    ]
    return (
        rows
        if scores is None
        else [row | {"score": _number(score)} for row, score in zip(rows, scores, strict=True)]
    )


def _number(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value


def _test_prompts(run: Evidence, selection: Selection) -> _Prompts | None:
    """Return the test prompts whose routing was captured; None without enough of either kind."""
    phase = next((phase for phase in PHASES if phase == selection.phase), None)
    parts = {
        task.name: counts
        for task in run.record.tasks
        if (counts := _test_routing(run, task.name)) is not None
    }
    if phase is None or not parts:
        return None
    kinds = {task.name: task.kind for task in run.record.tasks}
    texts, pairs = [], []
    for task, counts in parts.items():
        asked = {answer.prompt_id: answer.prompt for answer in run.answers(BASE, task)}
        keys = run.splits.tasks[task].pairs
        texts += [asked[id] for id in counts.ids]
        pairs += [keys.get(id) for id in counts.ids]
    used, weight = _use(join(list(parts.values())), phase, selection.experts)
    prompts = _Prompts(
        tasks=list(parts),
        task=np.repeat(list(parts), [len(counts.ids) for counts in parts.values()]),
        is_harmful=np.repeat(
            [kinds[task] == "harmful" for task in parts], [len(c.ids) for c in parts.values()]
        ),
        pairs=pairs,
        all=Side(used, weight, near_duplicate_groups(texts, pair_links(pairs))),
    )
    sides = (prompts.of(prompts.is_harmful), prompts.of(~prompts.is_harmful))
    return prompts if min(side.n_groups for side in sides) >= FEWEST_GROUPS else None


def _test_routing(run: Evidence, task: str) -> RoutingCounts | None:
    """Return the routing of each test prompt and base's answers to it; None where it was not captured."""
    counts = run.test_routing(task)
    prompts = None if counts is None else run.prompts(BASE, task)
    return counts if counts is None or prompts is None else summed(counts, prompts)


def _use(
    counts: RoutingCounts, phase: Phase, experts: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the routed tokens of each prompt that went to each chosen expert, [N, X], and its routed tokens [N]."""
    used, tokens = counts.of(phase)
    layers = [counts.layers.index(layer) for layer, _ in experts]
    return used[:, layers, [expert for _, expert in experts]].astype(np.float64), tokens.astype(np.float64)


def _difference(prompts: _Prompts) -> Estimate:
    return difference_in_use(prompts.of(prompts.is_harmful), prompts.of(~prompts.is_harmful))


def _intervals(estimate: Estimate) -> list[Interval | None]:
    ends = zip(*(values.tolist() for values in estimate), strict=True)
    return [
        None if math.isnan(low) else Interval(value=value, low=low, high=high) for value, low, high in ends
    ]


def _held_out(prompts: _Prompts) -> HeldOutSummary:
    sides = (prompts.of(prompts.is_harmful), prompts.of(~prompts.is_harmful))
    (total,) = _intervals(difference_in_use(*(side.total() for side in sides)))
    return HeldOutSummary(
        tasks=prompts.tasks,
        harmful=len(sides[0].weight),
        benign=len(sides[1].weight),
        groups=prompts.all.n_groups,
        difference=None if total is None else _scaled(total, 1 / prompts.all.used.shape[1]),
    )


def _scaled(interval: Interval, by: float) -> Interval:
    return Interval(value=interval.value * by, low=interval.low * by, high=interval.high * by)


def _topic(run: Evidence, prompts: _Prompts, direction: Literal["unsafe", "safe"]) -> TopicSummary | None:
    """Compare harmful prompts with their controls and with ordinary benign prompts; None without enough of either."""
    controls = [task for task in run.record.control_tasks if task in prompts.tasks]
    is_control = np.isin(prompts.task, controls)
    in_pair = _in_pair(prompts, is_control)
    paired = bool(in_pair.any())
    harmful, control = prompts.is_harmful, is_control
    if paired:
        harmful, control = harmful & in_pair, control & in_pair
    rows = (harmful, control, ~prompts.is_harmful & ~is_control)
    sides = [prompts.of(each).each_once().total() for each in rows]
    if min(side.n_groups for side in sides) < FEWEST_GROUPS:
        return None
    # Where experts are wanted that harmful prompts use less, it is that difference which topic may explain.
    sign = -1.0 if direction == "safe" else 1.0
    result: Topic = topic(*(side._replace(used=sign * side.used) for side in sides))
    share, chosen = result.share, prompts.all.used.shape[1]
    return TopicSummary(
        control=controls,
        harmful=len(sides[0].weight),
        paired=paired,
        against_benign=sign * float(result.against_benign.value[0]) / chosen,
        against_control=sign * float(result.against_control.value[0]) / chosen,
        share=None
        if share.value is None or share.low is None or share.high is None
        else Interval(value=share.value, low=share.low, high=share.high),
    )


def _in_pair(prompts: _Prompts, is_control: np.ndarray) -> np.ndarray:
    """Return which prompts are harmful with a control of their own, or such a control, [N]."""
    harmful, control = (
        [key if is_one else None for key, is_one in zip(prompts.pairs, rows, strict=True)]
        for rows in (prompts.is_harmful, is_control)
    )
    pairs = match(harmful, control)
    in_pair: np.ndarray = (pairs.harmful >= 0) | (pairs.control >= 0)
    return in_pair
