"""From samples to a verdict: PASS or FAIL where an exact one-sided test says so, INCONCLUSIVE where none does.

An unscored sample never helps: a gate passes only if it would whatever the unscored answers were, and fails only
if it would as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from harness.base.errors import BadInputError
from harness.gate.outcomes import GatedRun, Samples
from harness.gate.reference import Pinned, Reference
from harness.gate.schema import COUNTS, FROZEN, REFERENCE, Bound, Gate, GateFile
from harness.gate.words import bounded, counted, figure, required, share, sized
from harness.metrics import bounds
from harness.runs.metric import metric_of
from harness.runs.rows import Measurement

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
# The error of either end of a 95 % interval.
_OF_AN_INTERVAL = 0.025
EXIT_CODES: dict[Verdict, int] = {"PASS": 0, "FAIL": 3, "INCONCLUSIVE": 4}


@dataclass(frozen=True, slots=True)
class Flip:
    """A sample that came to something else than in what a gate compares with."""

    sample: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A gate's verdict and what it rests on.

    Attributes:
        gate: the gate.
        variant: the variant in question.
        verdict: PASS, FAIL or INCONCLUSIVE.
        value: the share, difference or count that was seen; None where there is none.
        bound: the one-sided confidence bound that was held against the limit; None where nothing is uncertain.
        n: samples.
        unscored: samples without a verdict, on either side of a comparison.
        required: the bound in words.
        seen: what was found in words, on one line.
        flips: samples that came to something else than in the reference.
    """

    gate: Gate
    variant: str
    verdict: Verdict
    value: float | None
    bound: float | None
    n: int
    unscored: int
    required: str
    seen: str
    flips: tuple[Flip, ...] = field(default=())


def overall(decisions: list[Decision]) -> Verdict:
    """Return the verdict of all gates together: one that fails counts for more than one that is inconclusive."""
    verdicts = {decision.verdict for decision in decisions}
    if "FAIL" in verdicts:
        return "FAIL"
    return "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "PASS"


def decide_all(file: GateFile, run: GatedRun, reference: Reference | None) -> list[Decision]:
    """Decide every gate of a file.

    Raises:
        BadInputError: a gate names something that the run lacks, compares what cannot be compared, or asks for a
            bound that so few samples can never prove.
    """
    return [decide(gate, run, reference, file.level) for gate in file.gates]


def decide(gate: Gate, run: GatedRun, reference: Reference | None, level: float) -> Decision:
    """Decide one gate; `level` is the error it allows, such as 0.05."""
    if gate.against == REFERENCE and reference is None:
        raise BadInputError(f"gate '{gate.name}' compares with a reference: name one with --against")
    names = [run.variant_name(gate)]
    if gate.against not in (None, REFERENCE):
        names.append(run.against_name(gate))
    for name in names:
        reason = run.skipped(name)
        if reason is not None:
            seen = f"'{name}' was not evaluated: {reason}"
            return Decision(gate, names[0], "INCONCLUSIVE", None, None, 0, 0, required(gate), seen)
    if gate.metric == FROZEN:
        kept = run.frozen(gate)
        seen = "every frozen weight is bit-identical" if kept else "a frozen weight changed"
        return Decision(gate, names[0], "PASS" if kept else "FAIL", None, None, 0, 0, required(gate), seen)
    if gate.metric in COUNTS:
        return _count(gate, run, names[0])
    row = run.figure(gate, names[0])
    samples = run.samples(row)
    if gate.against is None:
        return _share(gate, samples, level) if samples is not None else _figure(gate, row, level)
    if gate.against == REFERENCE and reference is not None:
        return _difference(
            gate, _given(gate, samples), reference.pinned(gate, _given(gate, samples), run), level
        )
    other = run.samples(run.figure(gate, names[1]))
    return _difference(gate, _given(gate, samples), Pinned.of(_given(gate, other)), level)


def _given(gate: Gate, samples: Samples | None) -> Samples:
    if samples is None:
        raise BadInputError(
            f"gate '{gate.name}': the samples of {gate.metric} are not right or wrong, so there is no exact bound on a "
            "difference; expected at_least or at_most, or a metric such as acc or exact_match"
        )
    return samples


def _count(gate: Gate, run: GatedRun, variant: str) -> Decision:
    (found, n), limit = run.count(gate), gate.bound.limit
    verdict: Verdict = "PASS" if found <= limit else "FAIL"
    return Decision(gate, variant, verdict, found, None, n, 0, required(gate), counted(gate, found, n))


def _share(gate: Gate, samples: Samples, level: float) -> Decision:
    n, unscored = samples.n, samples.unscored
    _refuse_unprovable(gate, n, "whatever they come to", lambda size: _best_share(size, gate.bound) <= level)
    verdict, bound = _decided_share(gate, samples.successes, n, unscored, level)
    seen = f"{share(samples)}; {bounded(bound, gate, verdict == 'FAIL', level)}"
    return Decision(gate, samples.variant, verdict, samples.value, bound, n, unscored, required(gate), seen)


def _figure(gate: Gate, row: Measurement, level: float) -> Decision:
    """Decide a figure that has no single samples: a share by its counts, any other by its interval.

    A figure without an interval is held against the limit as it is.
    """

    def decided(verdict: Verdict, bound: float | None, seen: str) -> Decision:
        return Decision(
            gate, row.variant, verdict, row.value, bound, row.n, row.unscored, required(gate), seen
        )

    if row.value is None:
        return decided("INCONCLUSIVE", None, "no value")
    if metric_of(row.metric, row.kind).is_proportion:
        verdict, bound = _decided_share(gate, round(row.value * row.scored), row.n, row.unscored, level)
        return decided(verdict, bound, f"{figure(row)}; {bounded(bound, gate, verdict == 'FAIL', level)}")
    side, limit = gate.bound
    if row.low is None or row.high is None:
        keeps = row.value >= limit if side == "lower" else row.value <= limit
        return decided("PASS" if keeps else "FAIL", None, f"{figure(row)}, which has no interval")
    if level < _OF_AN_INTERVAL:
        raise BadInputError(
            f"gate '{gate.name}': {gate.metric} is decided by its 95% interval: expected a confidence of at most "
            f"{1 - _OF_AN_INTERVAL}, found {1 - level:g}"
        )
    passes, fails = (
        (row.low >= limit, row.high < limit) if side == "lower" else (row.high <= limit, row.low > limit)
    )
    bound = row.low if (side == "lower") != fails else row.high
    return decided(_verdict(passes, fails), bound, figure(row))


def _decided_share(gate: Gate, successes: int, n: int, unscored: int, level: float) -> tuple[Verdict, float]:
    """Return the verdict on a share, and the bound that it rests on."""
    side, limit = gate.bound
    # The successes that count for a pass are the fewest there can be for a lower bound, the most for an upper one.
    least, most = successes, successes + unscored
    if side == "lower":
        passes = bounds.share_p_value(least, n, limit) <= level
        fails = bounds.share_p_value(n - most, n, 1 - limit) <= level
        bound = (
            bounds.share_upper_bound(most, n, level) if fails else bounds.share_lower_bound(least, n, level)
        )
    else:
        passes = bounds.share_p_value(n - most, n, 1 - limit) <= level
        fails = bounds.share_p_value(least, n, limit) <= level
        bound = (
            bounds.share_lower_bound(least, n, level) if fails else bounds.share_upper_bound(most, n, level)
        )
    return _verdict(passes, fails), bound


def _difference(gate: Gate, samples: Samples, other: Pinned, level: float) -> Decision:
    side, limit = gate.bound
    ids = list(samples.outcomes)
    mine, theirs = samples.outcomes, other.outcomes
    n = samples.n
    unscored = sum(mine[key] is None or theirs[key] is None for key in ids)
    _refuse_unprovable_difference(gate, other, level)

    def discordant(unscored_mine: bool) -> tuple[int, int]:
        """Return pairs where only this one succeeds, and only the other, if unscored samples all go one way."""
        pairs = [
            (
                unscored_mine if mine[key] is None else mine[key],
                (not unscored_mine) if theirs[key] is None else theirs[key],
            )
            for key in ids
        ]
        return pairs.count((True, False)), pairs.count((False, True))

    low, high = discordant(False), discordant(True)
    worst, kindest = (low, high) if side == "lower" else (high, low)
    passes = _shows(side, worst, n, limit) <= level
    fails = not passes and _shows("upper" if side == "lower" else "lower", kindest, n, limit) <= level
    if (side == "lower") != fails:
        bound = bounds.difference_lower_bound(*(kindest if fails else worst), n, level, limit)
    else:
        first, second = kindest if fails else worst
        bound = -bounds.difference_lower_bound(second, first, n, level, -limit)
    scored = [(mine[key], theirs[key]) for key in ids if mine[key] is not None and theirs[key] is not None]
    value = (scored.count((True, False)) - scored.count((False, True))) / len(scored) if scored else None
    seen = f"{share(samples)} against {other.value_in_words()}; {bounded(bound, gate, fails, level)}"
    verdict = _verdict(passes, fails)
    return Decision(
        gate,
        samples.variant,
        verdict,
        value,
        bound,
        n,
        unscored,
        required(gate),
        seen,
        _flips(gate, samples, other),
    )


def _flips(gate: Gate, samples: Samples, other: Pinned) -> tuple[Flip, ...]:
    if gate.against != REFERENCE:
        return ()
    return tuple(
        Flip(key, other.labels[key], label)
        for key, label in sorted(samples.labels.items())
        if label != other.labels[key]
    )


def _verdict(passes: bool, fails: bool) -> Verdict:
    return "PASS" if passes else "FAIL" if fails else "INCONCLUSIVE"


def _shows(side: str, discordant: tuple[int, int], n: int, limit: float) -> float:
    """Return the p-value against "the difference is on the other side of the limit"."""
    first, second = discordant
    if side == "lower":
        return bounds.difference_p_value(first, second, n, limit)
    return bounds.difference_p_value(second, first, n, -limit)


def _best_share(n: int, bound: Bound) -> float:
    """Return the p-value of the best result that `n` samples can give."""
    return bounds.share_p_value(n, n, bound.limit if bound.side == "lower" else 1 - bound.limit)


def _refuse_unprovable(gate: Gate, n: int, clause: str, proves: Callable[[int], bool]) -> None:
    if not proves(n):
        raise BadInputError(
            f"gate '{gate.name}': {required(gate)} cannot be shown on {n} samples, {clause}; "
            f"{sized(bounds.smallest_n(proves))}"
        )


def _refuse_unprovable_difference(gate: Gate, other: Pinned, level: float) -> None:
    side, limit = gate.bound
    theirs = other.outcomes
    n = len(theirs)
    # The best there can be: every sample that the other one does not have right (or, for an upper bound, has).
    wins = sum(outcome is not (side == "lower") for outcome in theirs.values() if outcome is not None)
    share_of_wins = wins / n if n else 0.0

    def proves(size: int) -> bool:
        best = wins if size == n else round(share_of_wins * size)
        p_value = bounds.difference_p_value(best, 0, size, limit if side == "lower" else -limit)
        return p_value <= level

    _refuse_unprovable(gate, n, f"where the other comes to {other.value_in_words()}", proves)
