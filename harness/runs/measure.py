"""From the files of a run folder to its summary: the one way to every figure.

It is a pure function of the folder, so a summary that was lost, or made before a judge was added, is made again without
the model or the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from harness.base.errors import BadInputError
from harness.base.plugins import broken, say_once
from harness.base.schema import explain
from harness.runs.claims import claims
from harness.runs.evidence import QUANTITIES, Evidence
from harness.runs.gain import gain_of
from harness.runs.inference import comparisons
from harness.runs.judged import agreements, judge_summaries
from harness.runs.metrics import METRICS, metric_of
from harness.runs.rows import Measurement
from harness.runs.selected import selection_summary
from harness.runs.summary import ChosenExperts, ModelSummary, Summary, VariantSummary

if TYPE_CHECKING:
    from harness.runs.metric import Metric
    from harness.runs.records import RunRecord
    from harness.runs.run import Run


def measure(run: Run) -> Summary:
    """Return a run's summary, made from its answers, verdicts, scores and proofs.

    Raises:
        BadInputError: the run is not finished, or a file that is needed is missing or is not what a run writes.
    """
    evidence = run if isinstance(run, Evidence) else Evidence(run.path)
    evidence.require_whole()
    record, model = evidence.record, evidence.model
    figures = measurements(evidence)
    gain = gain_of(evidence, figures)
    return Summary(
        run_id=_given(evidence, "run_id"),
        created=_given(evidence, "created"),
        configuration=record.configuration,
        harness_version=record.versions.get("harness", "unknown"),
        model=ModelSummary(**model.model_dump(include=set(ModelSummary.model_fields))),
        intervention=_given(evidence, "intervention"),
        seeds=record.seeds,
        decoding=_decoding(evidence),
        judge=evidence.primary,
        judges=judge_summaries(evidence),
        agreement=agreements(evidence),
        selection=selection_summary(evidence),
        variants={name: _variant(evidence, name) for name in record.variants},
        measurements=figures,
        comparisons=comparisons(evidence, figures),
        gain=gain,
        claims=claims(evidence, figures, gain),
        seconds={name: stage.seconds for name, stage in record.stages.items()},
    )


def measurements(run: Evidence) -> list[Measurement]:
    """Return every figure, variant by variant: by the primary judge, then by others, then what needs no judge."""
    from harness.runs.capability import Capability

    metrics = [*METRICS.working(), ("", Capability(""))]
    judges: list[str | None] = [*(name for of in QUANTITIES for name in run.judges_of(of)), None]
    tasks = list(run.record.asked)

    def place(row: Measurement) -> tuple[int, bool, int]:
        decides = metric_of(row.metric, row.kind).decides
        return _place(row.judge, judges), not decides, _place(row.task, tasks)

    return [
        row
        for variant, evaluated in run.record.evaluated.items()
        if evaluated.skipped is None
        for row in sorted(
            (row for name, metric in metrics for row in _figures(run, variant, name, metric)), key=place
        )
    ]


def _figures(run: Evidence, variant: str, name: str, metric: Metric) -> Iterable[Measurement]:
    plugin = METRICS.plugin(name)
    if plugin is None:
        try:
            return [*metric.measure(run, variant)]
        except ValidationError as error:
            kind = name or "capability"
            raise BadInputError(
                f"{run.path}: the files of variant '{variant}' give no figure of {kind}: {explain(error)}"
            ) from None
    try:
        return [*metric.measure(run, variant)]
    except Exception as error:
        # Nobody named this metric, so that the run's other figures do without it.
        say_once(f"left out: {broken(plugin, error)}")
        return []


def _place(name: str | None, names: Sequence[str | None]) -> int:
    return names.index(name) if name in names else len(names)


def _given(run: Evidence, name: str) -> str:
    value = getattr(run.record, name)
    if value is None:
        raise BadInputError(f"{run.layout.run}: {name}: missing")
    return str(value)


def _decoding(run: Evidence) -> dict[str, Any]:
    config = run.record.config
    generation, evaluation = config["generation"], config["evaluation"]
    return {
        **_strategy(run.record),
        "max_new_tokens": {task: asked.max_new_tokens for task, asked in run.record.asked.items()},
        "batch_size": generation["batch_size"],
        "chat_template_kwargs": generation["chat_template_kwargs"],
        "engine": run.record.engine,
        "dtype": config["dtype"],
        **({"opening": evaluation["opening"]} if evaluation["forced_start"] else {}),
        **({} if run.record.thinking.state == "none" else {"thinking": run.record.thinking.model_dump()}),
        **_of_the_checkpoint(run.record),
    }


def _strategy(record: RunRecord) -> dict[str, Any]:
    """Return how answers were chosen; sampled ones are compared with those that were sampled likewise."""
    if record.sampling is None:
        return {"strategy": "greedy"}
    how = record.sampling.model_dump(exclude={"seed"})
    if how["not_seeded"] is None:
        del how["not_seeded"]
    return {"strategy": "sampled", **how}


def _of_the_checkpoint(record: RunRecord) -> dict[str, Any]:
    """Return what the model's own files had to do with decoding; nothing where they had nothing."""
    model = record.model
    if model is None:
        return {}
    said = {
        "followed": model.followed,
        "set_aside": sorted(model.set_aside),
        "prompts_spelling_control_tokens": record.spelling_control_tokens,
        "template_clock": record.clock if model.reads_clock else None,
    }
    return {name: value for name, value in said.items() if value}


def _variant(run: Evidence, name: str) -> VariantSummary:
    evaluated = run.record.evaluated[name]
    proof = run.proof(name) if evaluated.trained else None
    return VariantSummary(
        specification=dict(run.variants[name]),
        trained_parameters=run.delta(name).parameters if evaluated.trained else 0,
        frozen_unchanged=None if proof is None else proof.frozen_unchanged,
        skipped=evaluated.skipped,
        seconds=_seconds(run, name),
        experts=_experts(run, name),
    )


def _experts(run: Evidence, variant: str) -> ChosenExperts | None:
    chosen = run.selection(variant)
    if chosen is None:
        return None
    beside = chosen.model_dump(include={"use_share", "match", "log10_sets", "sets_are_counted"})
    return ChosenExperts(n=len(chosen.experts), overlap=chosen.overlap_with_selection, **beside)


def _seconds(run: Evidence, variant: str) -> dict[str, float]:
    """Return how long each kind of stage took for a variant; several tasks of one kind are one stage."""
    seconds: dict[str, float] = {}
    for name, stage in run.record.stages.items():
        kind, _, subject = name.partition(" ")
        if subject.split("/")[0] == variant:
            seconds[kind] = round(seconds.get(kind, 0.0) + stage.seconds, 3)
    return seconds
