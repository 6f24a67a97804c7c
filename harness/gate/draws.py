"""Gates that compare a method with random draws of experts: the unit is the draw, whatever the number of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.base.errors import BadInputError
from harness.gate.decision import Decision, Outcome
from harness.gate.samples import GatedRun
from harness.gate.schema import Gate
from harness.gate.words import percent
from harness.metrics.draws import LEAST_USE, Range, beyond_draws, draw_p_value, fewest_draws
from harness.metrics.rates import worst_case
from harness.report.words import number, p_is
from harness.runs.rows import Measurement

_OUTCOMES: dict[bool | None, Outcome] = {True: "PASS", False: "FAIL", None: "INCONCLUSIVE"}


def decide_claim(gate: Gate, run: GatedRun, variant: str, level: float) -> Decision:
    """Decide a gate on the run's claim: PASS where it is shown at this level, FAIL where the opposite is.

    Raises:
        BadInputError: the run claims nothing about the variant, or has too few draws.
    """
    claim = next((claim for claim in run.summary.claims if claim.variant == variant), None)
    if claim is None:
        raise BadInputError(
            f"gate '{gate.name}': nothing chose the experts of '{variant}', so there is no claim"
        )
    draws = list(claim.draws.values())
    _require(gate, len(draws), level)
    if claim.value is None:
        return Decision(gate, variant, "INCONCLUSIVE", "the claim's figure was not measured")
    higher = claim.better == "higher"
    p, opposite = (draw_p_value(claim.value, draws, higher_is_better=way) for way in (higher, not higher))
    outcome: Outcome = "PASS" if p <= level else "FAIL" if opposite <= level else "INCONCLUSIVE"
    late = "" if run.summary.is_gain_declared else " (a figure that nothing declared beforehand)"
    seen = f"{claim.metric} {percent(claim.value)}{late}; {_ends(draws, percent)}; {p_is(p)} over draws"
    return _matched(gate, run, Decision(gate, variant, outcome, seen, claim.value, p, len(draws)))


def decide_against_draws(gate: Gate, run: GatedRun, row: Measurement, level: float) -> Decision:
    """Decide a gate against all random draws: PASS where the figure less the margin is beyond all of them.

    FAIL where it is on the other side of all of them, else INCONCLUSIVE; unscored answers count against either.

    Raises:
        BadInputError: the run has too few draws for the level, or a draw lacks the figure.
    """
    draws = run.summary.draws()
    _require(gate, len(draws), level)
    figures = [run.figure(gate, draw) for draw in draws]
    side, limit = gate.bound
    own = _range(run, row, figures)
    ranges = [_range(run, figure, [row]) for figure in figures]
    show = percent if gate.is_share else number
    if own is None or None in ranges:
        return Decision(gate, row.variant, "INCONCLUSIVE", "no value")
    known = [each for each in ranges if each is not None]
    outcome = _OUTCOMES[beyond_draws(own, known, limit, upwards=side == "lower")]
    value = "no value" if row.value is None else show(row.value)
    values = [figure.value for figure in figures if figure.value is not None]
    seen = f"{value}; {_ends(values, show)}"
    return _matched(
        gate, run, Decision(gate, row.variant, outcome, seen, row.value, n=len(draws), unscored=row.unscored)
    )


def _require(gate: Gate, draws: int, level: float) -> None:
    needed = fewest_draws(level)
    if draws < needed:
        raise BadInputError(
            f"gate '{gate.name}': {draws} random draws can show nothing at a confidence of {1 - level:g}; it takes "
            f"{needed} (`--draws {needed}`)"
        )


def _matched(gate: Gate, run: GatedRun, decision: Decision) -> Decision:
    """Leave open what rests on draws whose experts are used less: use alone moves a model."""
    if decision.outcome != "PASS":
        return decision
    share = run.mean_use_share(run.summary.draws())
    if share is not None and share >= LEAST_USE:
        return decision
    use = "an unknown share" if share is None else f"{share:.0%}"
    seen = (
        f"{decision.seen}; the draws' experts have {use} of the chosen ones' use, {LEAST_USE:.0%} is needed"
    )
    return decision._replace(outcome="INCONCLUSIVE", seen=seen)


def _range(run: GatedRun, row: Measurement, others: Sequence[Measurement]) -> Range | None:
    """Return a figure with unscored answers counted out, then in, on the prompts that all of these were asked."""
    samples = run.samples(row)
    if samples is None:
        return None if row.value is None else row.worst_case or (row.value, row.value)
    asked = [other.succeeded.keys() for each in others if (other := run.samples(each)) is not None]
    return worst_case(
        {id: outcome for id, outcome in samples.succeeded.items() if all(id in ids for ids in asked)}
    )


def _ends(values: Sequence[float], show: Callable[[float], str]) -> str:
    return f"{len(values)} random draws from {show(min(values))} to {show(max(values))}"
