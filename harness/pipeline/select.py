"""The stages that turn routing counts into an expert table, and the table into the experts that variants act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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
    import pandas as pd

    from harness.config import SelectionConfig
    from harness.data.task import Kind
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
            reason = variant.spec.why_not_with(settings)
            if reason is None:
                try:
                    own = _selected(session, settings)
                except BadInputError as error:
                    if settings == session.config.selection:
                        raise
                    # One of several published methods may find nothing; the others are compared all the same.
                    reason = str(error)
            if reason is not None:
                session.folder.layout.variant(variant.name).selection.unlink(missing_ok=True)
                variants.append(Prepared(variant, lacks_experts=reason))
                say(f"{variant.name}: {reason}")
                continue
        chosen = variant.spec.choose(own, plan.outline, random_draw_seed(seed, variant.draw))
        identify = _identify_tokens(session) if variant.spec.needs == "prompts" else {}
        variants.append(Prepared(variant, chosen, identify=identify))
        if chosen is not None:
            _record(session, variants[-1], record_of(chosen, selected))
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
    return selected_in(pd.read_parquet(session.folder.layout.experts), settings, session.config.seed)


def selected_in(table: pd.DataFrame, settings: SelectionConfig, seed: int) -> Selected:
    """Return the experts with the highest scores in an expert table."""
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
    return Selected(selection, use_of(table, phase), random_draw_seed(seed, -1))


def record_of(chosen: ExpertSelection, selected: Selected | None) -> dict[str, Any]:
    """Return the content of a variant's selection.json.

    Args:
        chosen: the experts that the variant acts on.
        selected: those of the run's intervention, beside which they are set.
    """
    return {
        "method": chosen.method,
        "phase": chosen.phase,
        "experts": [list(expert) for expert in chosen.experts],
        **(selected.beside(chosen) if selected else {}),
    }


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
    plan, path = session.plan, session.folder.layout.experts
    prompts = plan.prompts("identify")
    captured = {
        task: CapturedTask(
            plan.kind(task),
            _group(session, task),
            [prompt.text for prompt in prompts[task]],
            pair_keys_of(prompts[task], plan.sets),
        )
        for task in captured_tasks(session)
    }
    control = plan.control_tasks()
    table = table_of(captured, control, session.config.selection, session.config.seed)
    phases = table["phase"].nunique()
    # These have no phase, so they are the same in each.
    if "gradient" in plan.methods:
        table = table.assign(gradient=np.tile(_gradients(session), phases))
    if "paired" in plan.methods and (differences := paired_differences(session)) is not None:
        table = table.assign(paired=np.tile(differences.ravel(), phases))
    write_whole(path, lambda temporary: table.to_parquet(temporary, index=False))


class CapturedTask(NamedTuple):
    """The identify prompts of a task, with their routing.

    Attributes:
        kind: harmful or benign.
        group: the routing, N prompts.
        texts: of the prompts.
        pairs: the key of each prompt in a matched pair, equal for matched prompts of linked tasks.
    """

    kind: Kind
    group: Group
    texts: Sequence[str]
    pairs: Sequence[str | None]


def table_of(
    captured: Mapping[str, CapturedTask], control: Sequence[str], settings: SelectionConfig, seed: int
) -> pd.DataFrame:
    """Return the expert table of captured prompts, without the columns that need a model.

    Args:
        captured: by task.
        control: benign tasks on the harmful prompts' topics.
        settings: of the selection.
        seed: of everything that is drawn.
    """
    harmful, benign = (
        _joined([each for each in captured.values() if each.kind == kind]) for kind in ("harmful", "benign")
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
    matched = _control(captured, [task for task in control if task in captured], settings)
    table = statistical_table(harmful, benign, statistics, matched)
    phases = table["phase"].nunique()
    drawn = np.random.default_rng(random_draw_seed(seed, 0)).random(len(table) // phases)
    return table.assign(random=np.tile(drawn, phases))


def _group(session: Session, task: str) -> Group:
    path = session.folder.layout.routing(task)
    tokens = None if session.config.record == "counts" else load_tokens(path, with_logits=False)
    return Group(load_counts(path), tokens)


def _joined(parts: Sequence[CapturedTask]) -> Group:
    """Put the prompts of some tasks together, near-duplicates in groups."""
    texts = [text for part in parts for text in part.texts]
    return joined([part.group for part in parts], near_duplicate_groups(texts))


def _control(
    captured: Mapping[str, CapturedTask], tasks: Sequence[str], settings: SelectionConfig
) -> Control | None:
    """Return the control prompts: those of the tasks in the settings, or of the tasks whose pairs match."""
    if not tasks:
        return None
    harmful = [key for each in captured.values() if each.kind == "harmful" for key in each.pairs]
    pairs = match(harmful, [key for task in tasks for key in captured[task].pairs])
    if settings.control is None and len(pairs.keys) < FEWEST_PROMPTS:
        say(
            f"topic_adjusted is left out: {len(pairs.keys)} matched pairs of harmful and benign identify prompts, "
            f"{FEWEST_PROMPTS} are needed"
        )
        return None
    return Control(_joined([captured[task] for task in tasks]), pairs)


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
