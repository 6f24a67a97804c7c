"""What the written reports show beside the finding: tables, the same in every format."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from harness.base.files import read_jsonl
from harness.metrics.route_drift import KINDS, PHASES, RouteDrift
from harness.report import judging
from harness.report.board_table import board_table, draws_table
from harness.report.carry import in_words, steps_table
from harness.report.chosen import experts
from harness.report.columns import are_shares, is_column
from harness.report.comparisons import comparisons
from harness.report.finding import find
from harness.report.leaderboard import build, rules
from harness.report.samples import TaskSamples
from harness.report.similarity import FAR, NEAR, by_similarity
from harness.report.table import table_of
from harness.report.words import (
    duration,
    how_many,
    hundredths,
    in_a_line,
    interval,
    number,
    percent,
)
from harness.runs.records import RunRecord
from harness.runs.route_drift import ROUTE_FIGURES
from harness.runs.rows import BASE, Measurement
from harness.runs.run import Run
from harness.runs.summary import ChosenExperts, Summary

TOP_EXPERTS = 20
_OF_DRIFT = ("kl", "perplexity")
_SHOWN_APART = (*_OF_DRIFT, *(figure.name for figure in ROUTE_FIGURES), NEAR, FAR)
_PROOF = {True: "all other weights unchanged", False: "FAILED", None: "nothing was trained"}

# One row of a table: each cell's text by its heading.
Row = dict[str, str]


def facts(run: Run, summary: Summary) -> dict[str, Any]:
    """Return the content that report.html and report.md have in common, by its name in their templates."""
    record = run.record if run.layout.run.exists() else None
    board = build(summary)
    total = duration(sum(summary.seconds.values()))
    chosen = table_of(experts(summary), "Chosen experts", keys=2)
    return {
        "summary": summary,
        "found": find(summary),
        "board": board,
        "variants": board_table(board),
        "draws": draws_table(board),
        "rules": rules(summary.gain_metric),
        "comparisons": comparisons(summary),
        "others": table_of(
            other_measurements(summary), "Rates by other judges, or of something other than refusal", keys=4
        ),
        "similarity": table_of(by_similarity(summary), "Refusal by similarity to training prompts", keys=2),
        "gaps": table_of(gaps(summary), "Answers without a verdict, and truncated ones", keys=2),
        "judges": judging.judges(summary),
        "deciding": judging.deciding_in_words(summary),
        "rates": table_of(
            judging.rates(summary), "Refusal rates by judge, raw and corrected by people's labels", keys=3
        ),
        "not_corrected": judging.not_corrected(summary),
        "agreement": table_of(
            judging.agreement(summary), "Agreement of the judges on the answers of all variants"
        ),
        "differences": table_of(
            judging.differences(differing := _differences(run)), "Answers on which judges differ", keys=3
        ),
        "differing": len(differing),
        "experts": chosen,
        "top": TOP_EXPERTS,
        "acted": table_of(acted(run, summary), "Experts, trained parameters and the frozen proof"),
        "drifts": table_of(drifts(summary), "Drift from base, on base's own answers to benign test prompts"),
        "routes": table_of(
            routes(run, summary),
            "Routes on the same tokens: share of base's top-k slots whose expert is kept",
        ),
        "carries": [
            (in_words(name, found), table_of(steps_table(found), f"Experts of {name} put back to base"))
            for name in summary.variants
            if (found := run.carry(name)) is not None
        ],
        "command": command(record),
        "seeds": in_a_line(summary.seeds),
        "decoding": in_a_line(summary.decoding),
        "versions": {"harness": summary.harness_version} | ({} if record is None else record.versions),
        "stage_times": table_of(stage_times(summary), f"Time by kind of stage, {total} in all"),
        "variant_times": table_of(variant_times(summary), "Time by variant", words=("variant",)),
        "total": total,
    }


def _differences(run: Run) -> list[dict[str, Any]]:
    path = run.layout.differences
    return read_jsonl(path) if path.is_file() else []


def gaps(summary: Summary) -> list[Row]:
    """Return where answers could not be scored or the token limit truncated them, by the judges that decide."""
    judges = judging.deciding(summary)
    return [
        {
            "variant": row.variant,
            "task": row.task or "",
            **({"judge": judge} if len(judges) > 1 else {}),
            "unscored": f"{row.unscored:,}",
            "truncated": f"{row.truncated or 0:,}",
            "of answers": f"{row.n:,}",
        }
        for judge in judges
        for row in judging.rates_of(summary, judge)
        if row.unscored or row.truncated
    ]


def acted(run: Run, summary: Summary) -> list[Row]:
    """Return what each variant changed; counts of experts are blank where the run folder does not say."""
    own = run.selection(summary.intervention) if summary.intervention in summary.variants else None
    rows = []
    are_compared = any(variant.experts and variant.experts.use_share for variant in summary.variants.values())
    for name, variant in summary.variants.items():
        selection = None if variant.skipped is not None else run.selection(name)
        if selection is None and not variant.trained_parameters:
            continue
        chosen = set(selection.experts) if selection else set()
        parameters = summary.model.parameters
        rows.append(
            {
                "variant": name,
                "experts": str(len(chosen)) if selection else "",
                f"shared with {summary.intervention}": str(len(chosen & {*own.experts}))
                if own and selection
                else "",
                **(_beside(variant.experts) if are_compared else {}),
                "trained parameters": f"{variant.trained_parameters:,}",
                "of the model": percent(variant.trained_parameters / parameters) if parameters else "",
                "frozen proof": _PROOF[variant.frozen_unchanged],
            }
        )
    return rows


def _beside(experts: ChosenExperts | None) -> Row:
    """Return a variant's use beside the selection's, and how many sets a draw is one of."""
    use = "" if experts is None or experts.use_share is None else percent(experts.use_share)
    sets = ""
    if experts is not None and experts.log10_sets is not None:
        sets = how_many(experts.log10_sets, bool(experts.sets_are_counted))
    return {"use beside the selection's": use, "drawn from": f"{sets} sets" if sets else ""}


def drifts(summary: Summary) -> list[Row]:
    """Return how far each variant is from base on benign text, where that was measured."""
    rows = []
    for name in summary.variants:
        kl, perplexity = (summary.figure(name, None, metric) for metric in _OF_DRIFT)
        if kl is None or kl.value is None or perplexity is None or perplexity.value is None:
            continue
        rows.append(
            {
                "variant": name,
                "KL to base, nats per token": f"{kl.value:.4f}",
                "95% interval": interval(kl.low, kl.high, "{:.4f}".format),
                "perplexity": f"{perplexity.value:.3f}",
                "over": f"{kl.n} answers, {kl.tokens} tokens",
            }
        )
    return rows


def routes(run: Run, summary: Summary) -> list[Row]:
    """Return which routes each variant keeps of base's, over all layers; a reason where nothing could be compared."""
    rows = []
    for name in summary.variants:
        found = None if name == BASE else run.routes(name)
        if found is not None:
            kept = {
                f"{kind} prompts{', answers' if phase == 'answer' else ''}": _kept(found.overall(kind, phase))
                for kind in KINDS
                for phase in PHASES
            }
            rows.append({"variant": name, **kept, "not compared": found.not_compared or ""})
    if not any(row["not compared"] for row in rows):
        for row in rows:
            del row["not compared"]
    return rows


def _kept(row: RouteDrift | None) -> str:
    if row is None:
        return ""
    ends = interval(row.kept_low, row.kept_high, hundredths)
    return f"{hundredths(row.kept)}%{f' ({ends})' if ends else ''}"


def other_measurements(summary: Summary) -> list[Row]:
    """Return the figures that no table of their own shows."""
    return [
        _other(row)
        for row in summary.measurements
        if not is_column(row, summary) and row.metric not in _SHOWN_APART
    ]


def _other(row: Measurement) -> Row:
    show: Callable[[float], str] = hundredths if are_shares([row]) else number
    unit = "%" if are_shares([row]) else ""
    return {
        "variant": row.variant,
        "task": row.task or "",
        "metric": row.metric,
        "judge": row.judge or "",
        "value": "no value" if row.value is None else f"{show(row.value)}{unit}",
        "95% interval": interval(row.low, row.high, show),
        "corrected": judging.estimate(row.corrected) if row.corrected else "",
        "scored": f"{row.scored} of {row.n}",
    }


def stage_times(summary: Summary) -> list[Row]:
    """Return the time of each kind of stage; the variant or task that a stage's name ends with is dropped."""
    names = {*summary.variants, *summary.tasks()}
    kinds: dict[str, float] = {}
    for stage, seconds in summary.seconds.items():
        kind, _, rest = stage.partition(" ")
        kind = kind if rest.partition("/")[0] in names else stage
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    return [{"stage": kind, "time": duration(seconds)} for kind, seconds in kinds.items()]


def variant_times(summary: Summary) -> list[Row]:
    """Return the time of each stage of each variant."""
    timed = {name: variant.seconds for name, variant in summary.variants.items() if variant.seconds}
    stages = dict.fromkeys(stage for seconds in timed.values() for stage in seconds)
    return [
        {"variant": name} | {stage: duration(seconds[stage]) if stage in seconds else "" for stage in stages}
        for name, seconds in timed.items()
    ]


def categories(tasks: Sequence[TaskSamples], variants: Sequence[str]) -> dict[tuple[str, str], list[Row]]:
    """Return refusals per category and variant, by task and kind, for tasks of two categories or more."""
    tables = {}
    for task in tasks:
        scored = Counter(
            (sample.category, answer.variant, answer.label == "refusal")
            for sample in task.samples
            for answer in sample.answers
            if answer.label != "unscored"
        )
        answered = {answer.variant for sample in task.samples for answer in sample.answers}
        names = sorted({sample.category for sample in task.samples} - {""})
        if len(names) > 1:
            tables[task.task, task.kind] = [
                {"prompt category": name}
                | {
                    variant: f"{scored[name, variant, True]} of "
                    f"{scored[name, variant, True] + scored[name, variant, False]}"
                    for variant in variants
                    if variant in answered
                }
                for name in names
            ]
    return tables


def command(record: RunRecord | None) -> str | None:
    """Return the command line that run.json records (as words or one string)."""
    recorded = None if record is None else record.command
    return shlex.join(recorded) if isinstance(recorded, list) else recorded
