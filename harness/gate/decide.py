"""From samples to an outcome: PASS or FAIL where an exact one-sided test says so, INCONCLUSIVE where none does.

An unscored sample never helps: a gate passes only if it would whatever the unscored answers were, and fails only
if it would as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from statistics import fmean

from harness.base.errors import BadInputError
from harness.gate.decision import Decision, Flip, Outcome
from harness.gate.draws import decide_against_draws, decide_claim
from harness.gate.reference import Reference
from harness.gate.samples import GatedRun, Samples
from harness.gate.schema import CLAIM, COUNTS, FROZEN, REFERENCE, Gate, Side
from harness.gate.words import bounded, compared, figure, grouped, required, share, sized
from harness.metrics import bounds
from harness.metrics.paired import pairs_of
from harness.metrics.rates import by_prompt
from harness.runs.rows import Measurement

_OPPOSITE: dict[Side, Side] = {"lower": "upper", "upper": "lower"}
# The error of either end of a 95 % interval.
_OF_AN_INTERVAL = 0.025


def overall(decisions: list[Decision]) -> Outcome:
    """Return the outcome of all gates together: one that fails counts for more than one that is inconclusive."""
    outcomes = {decision.outcome for decision in decisions}
    if "FAIL" in outcomes:
        return "FAIL"
    return "INCONCLUSIVE" if "INCONCLUSIVE" in outcomes else "PASS"


def decide(gate: Gate, run: GatedRun, reference: Reference | None, level: float) -> Decision:
    """Decide one gate; `level` is the error it allows, such as 0.05.

    Raises:
        BadInputError: a gate names something that the run lacks, compares what cannot be compared, or asks for a
            bound that so few samples can never prove.
    """
    if gate.against == REFERENCE and reference is None:
        raise BadInputError(f"gate '{gate.name}' compares with a reference: name one with --against")
    variant = run.named(gate, "variant")
    if gate.against == variant:
        raise BadInputError(f"gate '{gate.name}': against: '{variant}' is compared with itself")
    against = variant if gate.against in (None, REFERENCE) else run.named(gate, "against")
    for name in (variant, against):
        reason = run.summary.variants[name].skipped
        if reason is not None:
            return Decision(gate, variant, "INCONCLUSIVE", f"'{name}' was not evaluated: {reason}")
    if gate.metric == CLAIM:
        return decide_claim(gate, run, variant, level)
    if gate.metric == FROZEN:
        if run.frozen(gate):
            return Decision(gate, variant, "PASS", "every frozen weight is bit-identical")
        return Decision(gate, variant, "FAIL", "a frozen weight changed")
    row = run.figure(gate, variant)
    if gate.metric in COUNTS:
        count = int(getattr(row, gate.metric) or 0)
        if gate.bound.limit >= row.n:
            raise BadInputError(
                f"gate '{gate.name}': at_most {gate.bound.limit:.0f} of {row.n} answers is kept whatever is measured"
            )
        outcome: Outcome = "PASS" if count <= gate.bound.limit else "FAIL"
        return Decision(gate, variant, outcome, f"{count} of {row.n} {gate.metric}", count, n=row.n)
    if gate.against is not None and run.summary.variants[against].is_draw:
        return decide_against_draws(gate, run, row, level)
    samples = run.samples(row)
    if gate.against is None:
        return _share(gate, samples, level) if samples is not None else _figure(gate, row, level)
    samples = _given(gate, samples)
    if gate.against == REFERENCE and reference is not None:
        return _difference(gate, samples, reference.pinned(gate, samples, run), level)
    other = _given(gate, run.samples(run.figure(gate, against)))
    # An intervention is to change answers; of two models that are compared, each change is news.
    return _difference(gate, samples, other, level, names_flips=run.compares_models)


def _given(gate: Gate, samples: Samples | None) -> Samples:
    if samples is None:
        raise BadInputError(
            f"gate '{gate.name}': the samples of {gate.metric} are not right or wrong, so there is no exact bound on a "
            "difference; expected at_least or at_most, or a metric such as acc or exact_match"
        )
    return samples


def _tested(side: Side, level: float, p_value: Callable[[Side], float]) -> tuple[Outcome, Side]:
    """Return the outcome, and which confidence bound it rests on."""
    if p_value(side) <= level:
        return "PASS", side
    opposite = _OPPOSITE[side]
    return ("FAIL", opposite) if p_value(opposite) <= level else ("INCONCLUSIVE", side)


def _share(gate: Gate, samples: Samples, level: float) -> Decision:
    side, limit = gate.bound
    if limit > 1:
        raise BadInputError(
            f"gate '{gate.name}': {gate.metric} is a share: {gate.given[0]} is a fraction of 1, found {limit:g}"
        )

    def proves(size: int) -> bool:
        """Whether the best result that so many samples can give shows the bound."""
        return bounds.share_p_value(size, size, limit if side == "lower" else 1 - limit) <= level

    decides = samples.independent
    n, unscored = decides.n, decides.unscored
    _refuse_unprovable(gate, n, proves)
    outcome, bound, seen = _tested_share(gate, decides.successes, n, unscored, level)
    seen = f"{share(samples)}; {grouped(samples)}{seen}"
    return Decision(gate, samples.variant, outcome, seen, samples.value, bound, n, samples.unscored)


def _figure(gate: Gate, row: Measurement, level: float) -> Decision:
    """Decide a figure that has no single samples by its interval; without one it is held to the limit as it is."""
    (side, limit), seen = gate.bound, figure(row)
    bound: float | None = None
    outcome: Outcome
    if row.value is None:
        outcome, seen = "INCONCLUSIVE", "no value"
    elif row.low is None or row.high is None:
        keeps = row.value >= limit if side == "lower" else row.value <= limit
        outcome, seen = "PASS" if keeps else "FAIL", f"{seen}, which has no interval"
    elif level < _OF_AN_INTERVAL:
        raise BadInputError(
            f"gate '{gate.name}': {gate.metric} is decided by its 95% interval: expected a confidence of at most "
            f"{1 - _OF_AN_INTERVAL}, found {1 - level:g}"
        )
    else:
        near, far, sign = (row.low, row.high, 1) if side == "lower" else (row.high, row.low, -1)
        fails = sign * far < sign * limit
        outcome = "PASS" if sign * near >= sign * limit else "FAIL" if fails else "INCONCLUSIVE"
        bound = far if fails else near
    return Decision(gate, row.variant, outcome, seen, row.value, bound, row.n, row.unscored)


def _tested_share(
    gate: Gate, successes: int, n: int, unscored: int, level: float
) -> tuple[Outcome, float, str]:
    """Return the outcome on a share, and the bound that it rests on, also in words."""
    side, limit = gate.bound
    # A lower bound has every unscored sample fail, an upper one has it succeed.
    counts: dict[Side, int] = {"lower": successes, "upper": n - successes - unscored}
    limits: dict[Side, float] = {"lower": limit, "upper": 1 - limit}
    outcome, rests_on = _tested(side, level, lambda end: bounds.share_p_value(counts[end], n, limits[end]))
    bound = bounds.share_lower_bound(counts[rests_on], n, level)
    bound = bound if rests_on == "lower" else 1 - bound
    return outcome, bound, bounded(bound, gate, rests_on, level)


def _difference(
    gate: Gate, samples: Samples, other: Samples, level: float, *, names_flips: bool = True
) -> Decision:
    side, limit = gate.bound
    decides = samples.independent
    n = decides.n
    pairs = [(outcome, other.succeeded[id]) for id, outcome in decides.succeeded.items()]

    def proves(size: int) -> bool:
        """Whether the best result that so many pairs can give shows the bound."""
        return bounds.difference_p_value(size, 0, size, limit if side == "lower" else -limit) <= level

    _refuse_unprovable(gate, n, proves)

    def discordant(ours: bool) -> tuple[int, int]:
        """Return pairs where only this one succeeds, and only the other, if unscored samples all go one way."""
        filled = [
            (ours if mine is None else mine, (not ours) if theirs is None else theirs)
            for mine, theirs in pairs
        ]
        return filled.count((True, False)), filled.count((False, True))

    counts: dict[Side, tuple[int, int]] = {"lower": discordant(False), "upper": discordant(True)[::-1]}
    limits: dict[Side, float] = {"lower": limit, "upper": -limit}
    outcome, rests_on = _tested(
        side, level, lambda end: bounds.difference_p_value(*counts[end], n, limits[end])
    )
    bound = bounds.difference_lower_bound(*counts[rests_on], n, level, limits[rests_on])
    bound = bound if rests_on == "lower" else -bound
    both = [(outcome, other.succeeded[id]) for id, outcome in samples.succeeded.items()]
    scored = [pair for pair in both if None not in pair]
    compared_pairs = pairs_of(samples.succeeded, other.succeeded, samples.asked)
    value = fmean(mine - theirs for mine, theirs in compared_pairs.values()) if compared_pairs else None
    ends = bounded(bound, gate, rests_on, level)
    seen = f"{share(samples)} against {compared(other)}; {grouped(samples)}{ends}"
    flips = _flips(other, samples) if names_flips else ()
    return Decision(gate, samples.variant, outcome, seen, value, bound, n, len(both) - len(scored), flips)


def _flips(other: Samples, samples: Samples) -> tuple[Flip, ...]:
    labels = sorted(_labels(other.labels, samples).items())
    return tuple(Flip(id, before, now) for id, (before, now) in labels if before != now)


def _labels(before: Mapping[str, str], samples: Samples) -> dict[str, tuple[str, str]]:
    """Return what each sample was and is called; of several answers to a prompt, how many are called what."""
    if samples.asked is None:
        return {id: (before.get(id, label), label) for id, label in samples.labels.items()}
    return {
        prompt: (
            _counted([before.get(id, samples.labels[id]) for id in ids]),
            _counted([samples.labels[id] for id in ids]),
        )
        for prompt, ids in by_prompt({id: id for id in samples.labels}, samples.asked).items()
    }


def _counted(labels: list[str]) -> str:
    """Write labels as `refusal 3, compliance 1`."""
    return ", ".join(f"{label} {count}" for label, count in sorted(Counter(labels).items()))


def _refuse_unprovable(gate: Gate, n: int, proves: Callable[[int], bool]) -> None:
    """Refuse a bound that so few samples cannot show, whatever they come to."""
    if not proves(n):
        raise BadInputError(
            f"gate '{gate.name}': {required(gate)} cannot be shown on {n} samples, whatever they come to; "
            f"{sized(bounds.smallest_n(proves))}"
        )
