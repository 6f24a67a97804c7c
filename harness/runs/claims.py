"""Claims about choosing experts: the method's figure among those of random draws, which are its unit.

A test over prompts compares two checkpoints. Among draws of experts the share of refusals may range from 0 to 100 %, so
that one draw is beaten says nothing about the method; only its place among many does. The figure is declared
beforehand (harness/runs/gain.py), and the draws are matched for use (docs/interventions.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from harness.metrics.draws import claimed, draw_p_value
from harness.metrics.rates import Outcomes, worst_case
from harness.runs.gain import declared_figure
from harness.runs.metrics import metric_of
from harness.runs.rows import REFUSAL, Claim, Gain, Measurement
from harness.runs.summary import draws_of

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence


def claims(run: Evidence, figures: Sequence[Measurement], gain: Gain | None) -> list[Claim]:
    """Return the claim of a run whose intervention acts on experts that a method chose; none of another run.

    Args:
        run: the run.
        figures: all of its figures.
        gain: what its gains rest on, on which it claims unless its settings name a figure.
    """
    own = str(run.record.intervention)
    evaluated = run.record.evaluated.get(own)
    selection = run.selection(own)
    if evaluated is None or evaluated.skipped is not None or _is_draw(run, own):
        return []
    if selection is None or not selection.is_choice:
        return []
    figure = declared_figure(run) or (REFUSAL if gain is None else gain.metric)
    done = {name: run.variants[name] for name, each in run.record.evaluated.items() if each.skipped is None}
    draws = draws_of(own, done)
    measured = {name: _declared(run, figures, figure, name) for name in (own, *draws)}
    tasks = [task for task in measured[own] if all(task in rows for rows in measured.values())]
    judge = measured[own][tasks[0]].judge if tasks else None
    asked = {task: _asked(run, measured, task) for task in tasks}
    better = metric_of(figure, "harmful").better(measured[own][tasks[0]]) if tasks else None
    compared = _compared(run, measured, asked, higher_is_better=better == "higher") if tasks else {}
    value, values = compared.pop(own, None), compared
    use_share = run.mean_use_share(draws)
    p_value = None
    if value is not None and values and better is not None:
        p_value = draw_p_value(value, list(values.values()), higher_is_better=better == "higher")
    verdict, reason = claimed(p_value, len(draws), use_share)
    if value is None:
        verdict, reason = "nothing claimed", f"{figure} was not measured on a harmful task"
    return [
        Claim(
            variant=own,
            method=str(selection.method),
            metric=figure,
            better=better,
            tasks=tasks,
            judge=judge,
            value=value,
            draws=values,
            p_value=p_value,
            use_share=use_share,
            prompts=sum(_prompts(run, measured[own][task], ids) for task, ids in asked.items()),
            verdict=verdict,
            reason=reason,
        )
    ]


def _compared(
    run: Evidence,
    measured: Mapping[str, Mapping[str, Measurement]],
    asked: Mapping[str, set[str]],
    *,
    higher_is_better: bool,
) -> dict[str, float]:
    """Return each variant's mean share over tasks, the intervention's first, each in the worst case for it.

    Unscored answers count against the method and for the draws, on the prompts that all were asked.
    """
    own = next(iter(measured))
    means = {}
    for name, figures in measured.items():
        end = int((name == own) != higher_is_better)
        shares = []
        for task, ids in asked.items():
            outcomes = {id: each for id, each in _outcomes(run, figures[task]).items() if id in ids}
            ends = worst_case(outcomes)
            if ends is not None:
                shares.append(ends[end])
        if len(shares) == len(asked):
            means[name] = fmean(shares)
    return means


def _is_draw(run: Evidence, name: str) -> bool:
    return run.variants[name].get("draw") is not None


def _declared(
    run: Evidence, figures: Sequence[Measurement], metric: str, variant: str
) -> dict[str, Measurement]:
    """Return a variant's figures that the claim is the mean of, by task: on harmful prompts without a forced start."""
    rows = [
        row
        for row in figures
        if (row.variant, row.metric, row.kind) == (variant, metric, "harmful") and row.task is not None
    ]
    judges = [row.judge for row in rows]
    return {
        str(row.task): row
        for row in rows
        if row.judge == judges[0]
        and not (row.task in run.record.asked and run.record.asked[row.task].opening)
    }


def _asked(run: Evidence, measured: Mapping[str, Mapping[str, Measurement]], task: str) -> set[str]:
    """Return the samples of a task that all of these variants have."""
    return set.intersection(*(set(_outcomes(run, rows[task])) for rows in measured.values()))


def _prompts(run: Evidence, row: Measurement, ids: set[str]) -> int:
    """Return how many prompts samples are of."""
    prompts = metric_of(row.metric, row.kind).prompts(run, row)
    return len(ids) if prompts is None else len({prompts[id] for id in ids})


def _outcomes(run: Evidence, row: Measurement) -> Outcomes:
    return metric_of(row.metric, row.kind).samples(run, row) or {}
