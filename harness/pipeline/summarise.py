"""From answers, verdicts and capability scores to summary.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import harness
from harness.base.files import read_jsonl
from harness.data.refusals import refusal_phrasings
from harness.interventions.spec import BASE
from harness.judges.base import Verdict
from harness.metrics.paired import adjust, compare_labels, compare_scores
from harness.metrics.phrasing import phrasing_rates
from harness.metrics.rates import refusal_rate
from harness.runs import summary as schema

if TYPE_CHECKING:
    import pandas as pd

    from harness.experts.select import ExpertSelection
    from harness.interventions.base import Variant
    from harness.pipeline.session import Session

_RATE = "refusal_rate"


@dataclass
class Evaluated:
    """What was found out about one variant."""

    variant: Variant
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    capability: dict[str, dict[str, Any]] = field(default_factory=dict)
    drift: dict[str, Any] | None = None
    trained_parameters: int = 0
    frozen_unchanged: bool | None = None
    skipped: str | None = None


def summarise(
    session: Session,
    evaluated: list[Evaluated],
    selection: ExpertSelection | None,
    table: pd.DataFrame | None,
) -> schema.Summary:
    """Build the summary of a run."""
    plan, outline = session.plan, session.plan.outline
    state = session.folder.state
    return schema.Summary(
        run_id=state["run_id"],
        created=state["created"],
        harness_version=harness.__version__,
        model=schema.ModelSummary(
            name=plan.ref.name,
            fingerprint=session.model_key,
            moe_layers=len(outline.layers),
            experts_per_layer=outline.n_experts,
            experts_per_token=outline.experts_per_token,
            parameters=sum(parameter.numel() for parameter in outline.model.parameters()),
        ),
        intervention=plan.config.intervention,
        seeds=session.seeds(),
        decoding=_decoding(session),
        judge=plan.judge.name,
        selection=_selection(session, selection, table),
        variants={item.variant.name: _variant(session, item) for item in evaluated},
        comparisons=_comparisons(session, evaluated),
        seconds=session.folder.seconds(),
    )


def _decoding(session: Session) -> dict[str, Any]:
    generation, evaluation = session.config.generation, session.config.evaluation
    return {
        "strategy": "greedy",
        "max_new_tokens": {task: session.plan.max_new_tokens(task) for task in session.plan.prompts("test")},
        "batch_size": generation.batch_size,
        "chat_template_kwargs": generation.chat_template_kwargs,
        "engine": session.engine_name,
        "dtype": session.config.dtype,
        **({"opening": evaluation.opening} if evaluation.forced_start else {}),
    }


def _selection(
    session: Session, selection: ExpertSelection | None, table: pd.DataFrame | None
) -> schema.SelectionSummary | None:
    if selection is None or table is None:
        return None
    rows = table[table["phase"] == selection.phase].set_index(["layer", "expert"])
    chosen = rows.loc[[tuple(expert) for expert in selection.experts]]
    return schema.SelectionSummary(
        method=selection.method,
        phase=selection.phase,
        experts=[
            schema.SelectedExpert(
                layer=layer,
                expert=expert,
                risk_diff=row["risk_diff"],
                low=row["low"],
                high=row["high"],
                q_value=row["q_value"],
            )
            for (layer, expert), row in zip(selection.experts, chosen.to_dict("records"), strict=True)
        ],
        topic=None
        if chosen["topic_adjusted"].isna().any()
        else schema.TopicSummary(
            control=session.plan.control_tasks(),
            against_benign=float(chosen["prompt_diff"].mean()),
            against_control=float(chosen["topic_adjusted"].mean()),
        ),
    )


def _variant(session: Session, item: Evaluated) -> schema.VariantSummary:
    name = item.variant.name
    seconds: dict[str, float] = {}
    for stage, spent in session.folder.seconds().items():
        what, _, whose = stage.partition(" ")
        if whose.split("/")[0] == name:
            seconds[what] = round(seconds.get(what, 0.0) + spent, 3)
    tasks = {task: _task(session, item, task) for task in item.verdicts}
    return schema.VariantSummary(
        tasks=tasks,
        measurements=[*_rates(tasks), *_phrasing(session, item)],
        capability={task: _capability(row) for task, row in item.capability.items()},
        drift=None if item.drift is None else schema.Drift(**item.drift),
        trained_parameters=item.trained_parameters,
        frozen_unchanged=item.frozen_unchanged,
        skipped=item.skipped,
        seconds=seconds,
    )


def _task(session: Session, item: Evaluated, task: str) -> schema.TaskResult:
    rate = refusal_rate([verdict.label for verdict in item.verdicts[task]])
    responses = read_jsonl(session.folder.responses(item.variant.name, task))
    return schema.TaskResult(
        kind=session.plan.kind(task),
        metric=_RATE,
        value=rate.value,
        low=rate.low,
        high=rate.high,
        n=rate.n,
        scored=rate.scored,
        unscored=rate.unscored,
        truncated=sum(row["finish_reason"] == "length" for row in responses),
        judge=session.plan.judge.name,
    )


def _rates(tasks: Mapping[str, schema.TaskResult]) -> Iterable[schema.Measurement]:
    for task, result in tasks.items():
        yield schema.Measurement(
            task=task,
            metric=result.metric,
            judge=result.judge,
            value=result.value,
            low=result.low,
            high=result.high,
            n=result.n,
            scored=result.scored,
        )


def _phrasing(session: Session, item: Evaluated) -> Iterable[schema.Measurement]:
    """Compare the refusals of a trained variant with the phrasings it saw and with those held out.

    High recall of trained phrasings with refusals far from the held-out ones would mean that the judge
    recognises the training text rather than a refusal.
    """
    if item.variant.spec.needs != "training":
        return
    for task, verdicts in item.verdicts.items():
        answers = {
            row["id"]: row["response"]
            for row in read_jsonl(session.folder.responses(item.variant.name, task))
        }
        refusals = [answers[verdict.id] for verdict in verdicts if verdict.label == "refusal"]
        rates = phrasing_rates(refusals, refusal_phrasings(), refusal_phrasings(held_out=True))
        for metric, rate in rates.items():
            yield schema.Measurement(
                task=task,
                metric=metric,
                judge=session.plan.judge.name,
                value=rate.value,
                low=rate.low,
                high=rate.high,
                n=len(refusals),
                scored=rate.scored,
            )


def _capability(row: Mapping[str, Any]) -> schema.CapabilityResult:
    return schema.CapabilityResult(**{name: row[name] for name in schema.CapabilityResult.model_fields})


def _comparisons(session: Session, evaluated: list[Evaluated]) -> list[schema.Comparison]:
    """Test every variant against base, and the intervention against each random draw, on the same prompts."""
    done = {item.variant.name: item for item in evaluated if item.skipped is None}
    intervention = session.plan.intervention
    pairs = [(name, BASE) for name in done if name != BASE]
    if intervention.name in done:
        pairs += [
            (intervention.name, name)
            for name, item in done.items()
            if item.variant.spec.is_drawn
            and item.variant.spec.intervention == intervention.spec.intervention
            and name != intervention.name
        ]
    rows = [row for name, against in pairs for row in _compare(session, done[name], done[against])]
    families: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        families.setdefault(row.family, []).append(place)
    for places in families.values():
        for place, adjusted in zip(places, adjust([rows[i].p_value for i in places]), strict=True):
            rows[place] = rows[place].model_copy(update={"p_adjusted": adjusted})
    return rows


def _compare(session: Session, item: Evaluated, against: Evaluated) -> Iterable[schema.Comparison]:
    name, other = item.variant.name, against.variant.name
    family = "against base" if other == BASE else "against random experts"
    for task, verdicts in item.verdicts.items():
        result = compare_labels(
            {verdict.id: verdict.label for verdict in verdicts},
            {verdict.id: verdict.label for verdict in against.verdicts[task]},
        )
        yield schema.Comparison(
            variant=name,
            against=other,
            task=task,
            metric=_RATE,
            judge=session.plan.judge.name,
            p_adjusted=None,
            family=f"{family}, {session.plan.kind(task)} tasks",
            **result._asdict(),
        )
    for task, row in item.capability.items():
        scores = compare_scores(row["items"], against.capability[task]["items"])
        yield schema.Comparison(
            variant=name,
            against=other,
            task=task,
            metric=row["metric"],
            judge=None,
            p_adjusted=None,
            family=f"{family}, capability",
            **scores._asdict(),
        )
