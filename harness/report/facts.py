"""What the written reports tell beside leaderboard and conclusion, as plain rows."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from harness.report.leaderboard import ALPHA
from harness.report.words import duration, hundredths, p_is, percent, signed
from harness.runs.records import RunRecord
from harness.runs.run import Run
from harness.runs.summary import Comparison, Summary

TOP_EXPERTS = 20


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
    return [
        DriftRow(
            name,
            f"{found.kl:.4f}",
            "" if found.low is None or found.high is None else f"{found.low:.4f} to {found.high:.4f}",
            f"{found.perplexity:.3f}",
            f"{found.answers} answers, {found.tokens} tokens",
        )
        for name, variant in summary.variants.items()
        if (found := variant.drift) is not None
    ]


def other_measurements(summary: Summary) -> list[Other]:
    """Return the rates beside the leaderboard's: by other judges, or of something other than refusal."""
    return [
        Other(
            name,
            row.task,
            row.metric,
            row.judge,
            percent(row.value),
            _interval(row.low, row.high),
            ""
            if row.corrected is None
            else f"{percent(row.corrected.value)} ({_interval(row.corrected.low, row.corrected.high)})",
            f"{row.scored} of {row.n}",
        )
        for name, variant in summary.variants.items()
        for row in variant.measurements
        if (shown := variant.tasks.get(row.task)) is None
        or (row.metric, row.judge) != (shown.metric, shown.judge)
    ]


def timing(summary: Summary) -> Timing:
    """Return how long each stage took; the name of a variant or task that a stage ends with is dropped."""
    whose = {*summary.variants, *(task for variant in summary.variants.values() for task in variant.tasks)}
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
    capability = {task for variant in summary.variants.values() for task in variant.capability}
    return [_test(row, row.task not in capability or _is_share(summary, row)) for row in summary.comparisons]


def command(record: RunRecord | None) -> str | None:
    """Return the command line that run.json records (as words or one string)."""
    recorded = None if record is None else record.command
    return shlex.join(recorded) if isinstance(recorded, list) else recorded


def versions(summary: Summary, record: RunRecord | None) -> dict[str, str]:
    """Return the versions that run.json records, this package's first."""
    return {"harness": summary.harness_version} | ({} if record is None else record.versions)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{hundredths(low)} to {hundredths(high)}"


def _is_share(summary: Summary, row: Comparison) -> bool:
    values = [
        result.value
        for name in (row.variant, row.against)
        if (result := summary.variants[name].capability.get(row.task)) is not None
        and result.value is not None
    ]
    return all(0 <= value <= 1 for value in values)


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
        row.task,
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
