"""The stage that turns routing counts into the experts that variants act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.files import write_json, write_whole
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress, say
from harness.config import DEFAULT_TOP_K
from harness.data.splits import pair_keys_of
from harness.experts.controls import match
from harness.experts.permutation import FEWEST_PROMPTS
from harness.experts.select import ExpertSelection, Limits, select_experts
from harness.experts.table import Control, Group, Statistics, joined, statistical_table
from harness.interventions.base import Prepared
from harness.pipeline.answering import capture, captured_tasks
from harness.pipeline.conversations import refusals, to_examples
from harness.pipeline.session import random_draw_seed
from harness.routing.counts import PHASES
from harness.routing.files import load_counts, load_tokens
from harness.runs.stages import stage

if TYPE_CHECKING:
    import pandas as pd

    from harness.pipeline.session import Session


def make_expert_table(session: Session) -> pd.DataFrame:
    """Compare captured routing of unsafe with that of safe prompts; the table is kept as experts.parquet."""
    import pandas as pd

    _expert_table(session)
    return pd.read_parquet(session.folder.path / "experts.parquet")


def _table_key(session: Session) -> str:
    settings = session.config.selection
    return fingerprint(
        [
            [
                [task, session.plan.kind(task), capture.fingerprint(session, task)]
                for task in captured_tasks(session)
            ],
            settings.deciding("table"),
            session.config.seed,
            _gradient_key(session) if settings.method == "gradient" else None,
        ]
    )


@stage("expert table", writes="experts.parquet", key=_table_key)
def _expert_table(session: Session) -> None:
    table = _table(session, {task: _group(session, task) for task in captured_tasks(session)})
    if session.config.selection.method == "gradient":
        table = table.assign(gradient=_gradients(session, len(table)))
    path = session.folder.path / "experts.parquet"
    write_whole(path, lambda temporary: table.to_parquet(temporary, index=False))


def _group(session: Session, task: str) -> Group:
    counts = load_counts(session.folder.routing(task))
    if session.config.record == "counts":
        return Group(counts)
    return Group(counts, load_tokens(session.folder.routing(task), with_logits=False))


def _table(session: Session, groups: Mapping[str, Group]) -> pd.DataFrame:
    settings, plan = session.config.selection, session.plan
    of_kind = {
        kind: joined([group for task, group in groups.items() if plan.kind(task) == kind])
        for kind in ("harmful", "benign")
    }
    how = Statistics(
        seed=session.config.seed,
        top_k=settings.at_most or DEFAULT_TOP_K,
        direction=settings.direction,
        permutations=settings.permutations,
        resamples=settings.resamples,
        half_samples=settings.half_samples,
        cut_tokens=settings.cut_tokens,
    )
    table = statistical_table(of_kind["harmful"], of_kind["benign"], how, _control(session, groups))
    drawn = np.random.default_rng(random_draw_seed(session.config.seed, 0)).random(len(table) // len(PHASES))
    return table.assign(random=np.tile(drawn, len(PHASES)))


def _control(session: Session, groups: Mapping[str, Group]) -> Control | None:
    """Return the control prompts: those of the tasks that were named, or of the tasks whose pairs match."""
    plan = session.plan
    named = session.config.selection.control
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
    return Control(joined([groups[task] for task in tasks]), pairs)


def _gradient_key(session: Session) -> str:
    return session.key(
        refusals=fingerprint(refusals(session)), training=session.config.training.deciding("training")
    )


def _gradients(session: Session, rows: int) -> np.ndarray:
    """Return the gradient score of each row of the table; it has no phase, so it is the same in each."""
    from harness.training.gradient import expert_gradients

    examples = to_examples(session, refusals(session))
    training = session.config.training
    with progress("gradient score", len(examples), "examples") as advance:
        scores = expert_gradients(
            session.loaded,
            examples,
            batch_size=training.batch_size,
            checkpointing=training.gradient_checkpointing,
            on_examples=advance,
        )
    return np.tile(scores.numpy().ravel(), rows // scores.numel())


def select(session: Session) -> list[Prepared]:
    """Choose the experts that each variant acts on; kept as selection.json in its folder.

    Returns:
        All variants of the run, in its order.
    """
    selected = _chosen(session) if session.plan.selects else None
    variants = []
    for variant in session.plan.variants:
        seed = random_draw_seed(session.config.seed, variant.draw)
        made = Prepared(variant, variant.spec.choose(selected, session.plan.outline, seed))
        if made.selection is not None:
            _keep(session, made, _record(made.selection, selected))
        variants.append(made)
    return variants


def _chosen(session: Session) -> ExpertSelection:
    settings = session.config.selection
    return select_experts(
        make_expert_table(session),
        phase=settings.phase,
        limits=Limits(
            settings.at_most, settings.threshold, settings.per_layer, settings.top_p, settings.max_q
        ),
        method=settings.method,
        direction=settings.direction,
    )


def _record(selection: ExpertSelection, selected: ExpertSelection | None) -> dict[str, Any]:
    overlap = len(set(selection.experts) & set(selected.experts)) if selected else None
    return {
        "method": selection.method,
        "phase": selection.phase,
        "experts": [list(expert) for expert in selection.experts],
        "overlap_with_selection": overlap,
    }


def _selection_key(session: Session, made: Prepared, record: dict[str, Any]) -> str:
    return fingerprint(record)


@stage("select {made.name}", writes="variants/{made.name}/selection.json", key=_selection_key)
def _keep(session: Session, made: Prepared, record: dict[str, Any]) -> None:
    write_json(session.folder.variant(made.name) / "selection.json", record)
