"""The stages that turn routing counts into an expert table, and the table into the experts that variants act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.errors import BadInputError
from harness.base.files import write_json, write_whole
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress, say
from harness.config import DEFAULT_TOP_K
from harness.data.duplicates import near_duplicate_groups
from harness.data.splits import pair_keys_of
from harness.experts.controls import match
from harness.experts.draws import Selected, use_of
from harness.experts.permutation import FEWEST_PROMPTS
from harness.experts.select import ExpertSelection, Limits, select_experts
from harness.experts.table import Control, Group, Statistics, joined, statistical_table
from harness.interventions.base import Prepared
from harness.pipeline.capture import capture, captured_tasks
from harness.pipeline.conversations import refusals, to_examples
from harness.pipeline.paired import paired_differences, paired_key
from harness.pipeline.session import random_draw_seed
from harness.routing.files import load_counts, load_tokens
from harness.routing.phases import phase_among
from harness.runs.layout import PATHS
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.config import SelectionConfig
    from harness.pipeline.session import Session


def select(session: Session) -> list[Prepared]:
    """Choose the experts that each variant acts on; kept as selection.json in its folder.

    Returns:
        All variants of the run, in its order.
    """
    plan, seed = session.plan, session.config.seed
    # Every variant is set beside what the intervention acts on, or would; a run that cannot find that is refused.
    selected = _selected(session, plan.selection_of(plan.intervention)) if plan.selects else None
    variants = []
    for variant in plan.variants:
        own = selected
        if variant.spec.uses_selection:
            settings = plan.selection_of(variant)
            try:
                own = _selected(session, settings)
            except BadInputError as error:
                if settings == session.config.selection:
                    raise
                # One of several published methods may find nothing in a model; the others are compared all the same.
                session.folder.layout.variant(variant.name).selection.unlink(missing_ok=True)
                variants.append(Prepared(variant, lacks_experts=str(error)))
                say(f"{variant.name}: {error}")
                continue
        chosen = variant.spec.choose(own, plan.outline, random_draw_seed(seed, variant.draw))
        identify = _identify_tokens(session) if variant.spec.needs == "prompts" else {}
        variants.append(Prepared(variant, chosen, identify=identify))
        if chosen is not None:
            record = {
                "method": chosen.method,
                "phase": chosen.phase,
                "experts": [list(expert) for expert in chosen.experts],
                **(selected.beside(chosen) if selected else {}),
            }
            _record(session, variants[-1], record)
    if selected is not None:
        _say_how_few(variants, selected)
    return variants


def _identify_tokens(session: Session) -> dict[str, list[list[int]]]:
    """Return the tokens of the identify prompts, by kind."""
    plan, kinds = session.plan, ("harmful", "benign")
    by_kind = {kind: plan.prompts("identify", kind).values() for kind in kinds}
    asked = {kind: [prompt.asked for prompts in by_kind[kind] for prompt in prompts] for kind in kinds}
    return {kind: plan.chat.tokens(asked[kind]) for kind in kinds}


def _say_how_few(variants: Sequence[Prepared], selected: Selected) -> None:
    """Say which draws have to repeat one another, since there are fewer sets of experts than draws."""
    draws: dict[str, list[ExpertSelection]] = {}
    for made in variants:
        if made.selection is not None and made.selection.match is not None:
            draws.setdefault(made.intervention.name, []).append(made.selection)
    for name, drawn in draws.items():
        match = drawn[0].match
        assert match is not None
        sets = round(10 ** min(selected.sets(match).log10, 9))
        if sets < len(drawn):
            matched = "about the selection's use" if match == "use" else "as many experts per layer"
            say(
                f"{name}: {len(drawn)} draws of {sets} sets of experts with {matched}: some draws are the same"
            )


def _selected(session: Session, settings: SelectionConfig) -> Selected:
    """Return the experts with the highest scores in the expert table."""
    return session.once(("selected", settings.model_dump_json()), lambda: _select(session, settings))


def _select(session: Session, settings: SelectionConfig) -> Selected:
    import pandas as pd

    session.once("expert table", lambda: _expert_table(session))
    table = pd.read_parquet(session.folder.layout.experts)
    phase = phase_among(settings.phase, set(table["phase"]))
    selection = select_experts(
        table,
        phase=phase,
        limits=Limits(
            settings.at_most, settings.threshold, settings.per_layer, settings.top_p, settings.max_q
        ),
        method=settings.method,
        direction=settings.direction,
    )
    return Selected(selection, use_of(table, phase), random_draw_seed(session.config.seed, -1))


def _record_key(session: Session, made: Prepared, record: dict[str, Any]) -> str:
    return fingerprint(record)


@stage("select {made.name}", writes=str(PATHS.variant("{made.name}").selection), key=_record_key)
def _record(session: Session, made: Prepared, record: dict[str, Any]) -> None:
    write_json(session.folder.layout.variant(made.name).selection, record)


def _table_key(session: Session) -> str:
    settings, gradient, methods = session.config.selection, None, session.plan.methods
    if "gradient" in methods:
        gradient = session.key(
            refusals=fingerprint(refusals(session)), training=session.config.training.deciding("training")
        )
    tasks = captured_tasks(session)
    captured = [[task, session.plan.kind(task), capture.fingerprint(session, task)] for task in tasks]
    pairs = [paired_key(session)] if "paired" in methods else []
    return fingerprint([captured, settings.deciding("table"), session.config.seed, gradient, *pairs])


@stage("expert table", writes=str(PATHS.experts), key=_table_key)
def _expert_table(session: Session) -> None:
    """Compare captured routing of unsafe with that of safe prompts."""
    settings, plan, seed = session.config.selection, session.plan, session.config.seed
    groups = {task: _group(session, task) for task in captured_tasks(session)}
    harmful, benign = (
        _joined(session, {task: group for task, group in groups.items() if plan.kind(task) == kind})
        for kind in ("harmful", "benign")
    )
    statistics = Statistics(
        seed=seed,
        top_k=settings.at_most or DEFAULT_TOP_K,
        direction=settings.direction,
        permutations=settings.permutations,
        resamples=settings.resamples,
        half_samples=settings.half_samples,
        cut_tokens=settings.cut_tokens,
    )
    table = statistical_table(harmful, benign, statistics, _control(session, groups))
    phases = table["phase"].nunique()
    drawn = np.random.default_rng(random_draw_seed(seed, 0)).random(len(table) // phases)
    table = table.assign(random=np.tile(drawn, phases))
    # These have no phase, so they are the same in each.
    if "gradient" in plan.methods:
        table = table.assign(gradient=np.tile(_gradients(session), phases))
    if "paired" in plan.methods and (differences := paired_differences(session)) is not None:
        table = table.assign(paired=np.tile(differences.ravel(), phases))
    path = session.folder.layout.experts
    write_whole(path, lambda temporary: table.to_parquet(temporary, index=False))


def _group(session: Session, task: str) -> Group:
    path = session.folder.layout.routing(task)
    tokens = None if session.config.record == "counts" else load_tokens(path, with_logits=False)
    return Group(load_counts(path), tokens)


def _joined(session: Session, groups: Mapping[str, Group]) -> Group:
    """Put the prompts of some tasks together, near-duplicates in groups."""
    prompts = session.plan.prompts("identify")
    texts = [prompt.text for task in groups for prompt in prompts[task]]
    return joined(list(groups.values()), near_duplicate_groups(texts))


def _control(session: Session, groups: Mapping[str, Group]) -> Control | None:
    """Return the control prompts: those of the tasks in the settings, or of the tasks whose pairs match."""
    plan, named = session.plan, session.config.selection.control
    tasks = [task for task in plan.control_tasks() if task in groups]
    if not tasks:
        return None
    prompts = plan.prompts("identify")
    harmful = [prompt for task in groups if plan.kind(task) == "harmful" for prompt in prompts[task]]
    benign = [prompt for task in tasks for prompt in prompts[task]]
    keys = pair_keys_of([*harmful, *benign], plan.sets)
    pairs = match(keys[: len(harmful)], keys[len(harmful) :])
    if named is None and len(pairs.keys) < FEWEST_PROMPTS:
        say(
            f"topic_adjusted is left out: {len(pairs.keys)} matched pairs of harmful and benign identify prompts, "
            f"{FEWEST_PROMPTS} are needed"
        )
        return None
    return Control(_joined(session, {task: groups[task] for task in tasks}), pairs)


def _gradients(session: Session) -> np.ndarray:
    """Return the gradient score of each expert, layer by layer."""
    from harness.training.gradient import expert_gradients

    examples, training = to_examples(session, refusals(session)), session.config.training
    with progress("gradient score", len(examples), "examples") as advance:
        scores = expert_gradients(
            session.loaded,
            examples,
            batch_size=training.batch_size,
            checkpointing=training.gradient_checkpointing,
            on_examples=advance,
        )
    return scores.numpy().ravel()
