"""What the written reports tell beside leaderboard and conclusion, as plain rows."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from harness.report.leaderboard import ALPHA, are_shares, is_column
from harness.report.words import duration, hundredths, p_is, percent, signed
from harness.runs.records import RunRecord
from harness.runs.rows import Comparison, Measurement
from harness.runs.run import Run
from harness.runs.summary import Summary

TOP_EXPERTS = 20
_OF_DRIFT = ("kl", "perplexity")


@dataclass(frozen=True, slots=True)
class Acted:
    """What a variant changed in the model. Counts are None where the run folder does not say."""

    variant: str
    experts: int | None
    shared: int | None
    parameters: int
    share: float | None
    proof: str


@dataclass(frozen=True, slots=True)
class DriftRow:
    """How far a variant is from base on benign text."""

    variant: str
    kl: str
    interval: str
    perplexity: str
    over: str


@dataclass(frozen=True, slots=True)
class Other:
    """One measurement that the leaderboard does not show."""

    variant: str
    task: str
    metric: str
    judge: str
    value: str
    interval: str
    corrected: str
    scored: str


@dataclass(frozen=True, slots=True)
class Timing:
    """How long each kind of stage took in all, and of each variant's."""

    run: tuple[tuple[str, str], ...]
    stages: tuple[str, ...]
    variants: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison in words."""

    variant: str
    against: str
    task: str
    metric: str
    judge: str
    difference: str
    interval: str
    p_value: str
    p_adjusted: str
    n: str
    discordant: str
    detectable: str
    test: str
    family: str
    is_significant: bool


def acted(run: Run, summary: Summary) -> list[Acted]:
    """Return what each variant changed; `shared` counts the experts that the intervention changed too."""
    own = run.selection(summary.intervention) if summary.intervention in summary.variants else None
    rows = []
    for name, variant in summary.variants.items():
        if variant.skipped is not None:
            continue
        selection = run.selection(name)
        experts = None if selection is None else selection.experts
        if experts is None and not variant.trained_parameters:
            continue
        shared = None if own is None or experts is None else len({*own.experts} & {*experts})
        share = variant.trained_parameters / summary.model.parameters if summary.model.parameters else None
        proof = {True: "all other weights unchanged", False: "FAILED", None: "nothing was trained"}
        rows.append(
            Acted(
                name,
                None if experts is None else len(experts),
                shared,
                variant.trained_parameters,
                share,
                proof[variant.frozen_unchanged],
            )
        )
    return rows


def drifts(summary: Summary) -> list[DriftRow]:
    """Return each variant's drift, as far as it was measured."""
    rows = []
    for name in summary.variants:
        kl, perplexity = (summary.figure(name, None, metric) for metric in _OF_DRIFT)
        if kl is None or kl.value is None or perplexity is None or perplexity.value is None:
            continue
        rows.append(
            DriftRow(
                name,
                f"{kl.value:.4f}",
                "" if kl.low is None or kl.high is None else f"{kl.low:.4f} to {kl.high:.4f}",
                f"{perplexity.value:.3f}",
                f"{kl.n} answers, {kl.tokens} tokens",
            )
        )
    return rows


def other_measurements(summary: Summary) -> list[Other]:
    """Return the figures that neither the leaderboard nor the table of drift shows."""
    return [
        _other(row)
        for row in summary.measurements
        if not is_column(row, summary) and row.metric not in _OF_DRIFT
    ]


def timing(summary: Summary) -> Timing:
    """Return how long each stage took; the name of a variant or task that a stage ends with is dropped."""
    whose = {*summary.variants, *summary.tasks()}
    kinds: dict[str, float] = {}
    for stage, seconds in summary.seconds.items():
        what, _, rest = stage.partition(" ")
        kind = what if rest.partition("/")[0] in whose else stage
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    stages = tuple(dict.fromkeys(stage for variant in summary.variants.values() for stage in variant.seconds))
    return Timing(
        tuple((kind, duration(seconds)) for kind, seconds in kinds.items()),
        stages,
        tuple(
            (
                name,
                tuple(
                    duration(variant.seconds[stage]) if stage in variant.seconds else "" for stage in stages
                ),
            )
            for name, variant in summary.variants.items()
            if variant.seconds
        ),
    )


def tests(summary: Summary) -> list[Test]:
    """Return every comparison of the run."""
    return [_test(row, _is_share(summary, row)) for row in summary.comparisons]


def command(record: RunRecord | None) -> str | None:
    """Return the command line that run.json records (as words or one string)."""
    recorded = None if record is None else record.command
    return shlex.join(recorded) if isinstance(recorded, list) else recorded


def versions(summary: Summary, record: RunRecord | None) -> dict[str, str]:
    """Return the versions that run.json records, this package's first."""
    return {"harness": summary.harness_version} | ({} if record is None else record.versions)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{hundredths(low)} to {hundredths(high)}"


def _other(row: Measurement) -> Other:
    is_share, corrected = are_shares([row]), row.corrected

    def show(figure: float | None) -> str:
        return percent(figure) if is_share or figure is None else f"{figure:.4g}"

    interval = _interval(row.low, row.high)
    if not is_share and row.low is not None:
        interval = f"{show(row.low)} to {show(row.high)}"
    return Other(
        row.variant,
        row.task or "",
        row.metric,
        row.judge or "",
        show(row.value),
        interval,
        ""
        if corrected is None
        else f"{percent(corrected.value)} ({_interval(corrected.low, corrected.high)})",
        f"{row.scored} of {row.n}",
    )


def _is_share(summary: Summary, row: Comparison) -> bool:
    found = (summary.figure(name, row.task, row.metric, row.judge) for name in (row.variant, row.against))
    return are_shares([figure for figure in found if figure is not None])


def _test(row: Comparison, is_share: bool) -> Test:
    def show(number: float | None) -> str:
        if number is None:
            return ""
        return signed(number) if is_share else f"{number:+.4g}"

    def p(number: float | None) -> str:
        return "" if number is None else p_is(number).removeprefix("p ").removeprefix("= ")

    detectable = row.minimum_detectable
    return Test(
        row.variant,
        row.against,
        row.task or "",
        row.metric,
        row.judge or "",
        show(row.difference),
        "" if row.low is None or row.high is None else f"{show(row.low)} to {show(row.high)}",
        p(row.p_value),
        p(row.p_adjusted),
        str(row.n),
        "" if row.discordant is None else str(row.discordant),
        "" if detectable is None else (hundredths(detectable) if is_share else f"{detectable:.4g}"),
        row.test,
        row.family,
        row.p_adjusted is not None and row.p_adjusted < ALPHA,
    )
