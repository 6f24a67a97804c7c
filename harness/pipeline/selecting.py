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
from harness.experts.select import ExpertSelection, Limits, random_experts, select_experts
from harness.experts.table import Control, Group, Statistics, joined, statistical_table
from harness.pipeline.answering import capture_routing
from harness.pipeline.conversations import refusals, to_examples
from harness.pipeline.session import random_draw_seed
from harness.routing.counts import PHASES, RoutingCounts
from harness.routing.files import load_tokens

if TYPE_CHECKING:
    import pandas as pd

    from harness.interventions.apply import Variant
    from harness.pipeline.session import Session


def make_expert_table(session: Session) -> pd.DataFrame:
    """Capture routing and compare unsafe with safe prompts; the table is kept as experts.parquet."""
    import pandas as pd

    path = session.folder.path / "experts.parquet"
    counts = capture_routing(session)
    settings, states = session.config.selection, session.folder.state["stages"]
    key = fingerprint(
        [
            [[task, session.plan.kind(task), states[f"capture {task}"]["fingerprint"]] for task in counts],
            settings.deciding("table"),
            session.config.seed,
            _gradient_key(session) if settings.method == "gradient" else None,
        ]
    )
    if not session.folder.is_done("expert table", key, [path]):
        with session.folder.stage("expert table", key):
            table = _table(session, {task: _group(session, task, counts[task]) for task in counts})
            if settings.method == "gradient":
                table = table.assign(gradient=_gradients(session, len(table)))
            write_whole(path, lambda temporary: table.to_parquet(temporary, index=False))
    return pd.read_parquet(path)


def _group(session: Session, task: str, counts: RoutingCounts) -> Group:
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


def select(session: Session) -> dict[str, ExpertSelection]:
    """Say which experts each variant acts on; kept as selection.json in its folder."""
    chosen = _chosen(session) if session.plan.selects else None
    selections = {}
    for variant in session.plan.variants:
        selection = _experts_of(session, variant, chosen)
        if selection is not None:
            selections[variant.name] = selection
            _keep(session, variant, selection, chosen)
    return selections


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


def _experts_of(session: Session, variant: Variant, chosen: ExpertSelection | None) -> ExpertSelection | None:
    outline = session.plan.outline
    if variant.spec.experts == "all":
        return ExpertSelection("all", "none", tuple(outline.all_experts()))
    if variant.spec.experts == "random" and chosen is not None:
        return random_experts(chosen, outline.n_experts, random_draw_seed(session.config.seed, variant.draw))
    return chosen if variant.spec.experts == "selected" else None


def _keep(
    session: Session, variant: Variant, selection: ExpertSelection, chosen: ExpertSelection | None
) -> None:
    overlap = len(set(selection.experts) & set(chosen.experts)) if chosen else None
    row: dict[str, Any] = {
        "method": selection.method,
        "phase": selection.phase,
        "experts": [list(expert) for expert in selection.experts],
        "overlap_with_selection": overlap,
    }
    write_json(session.folder.variant(variant.name) / "selection.json", row)
