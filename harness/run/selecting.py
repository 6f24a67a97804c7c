"""The stage that turns routing counts into the experts that variants act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.experts.select import ExpertSelection, random_experts, select_experts
from harness.experts.table import expert_table
from harness.routing.counts import join
from harness.run.answering import capture_routing
from harness.run.session import random_draw_seed
from harness.store.files import write_json, write_whole
from harness.store.fingerprint import fingerprint

if TYPE_CHECKING:
    import pandas as pd

    from harness.interventions.apply import Variant
    from harness.run.session import Session


def make_expert_table(session: Session) -> pd.DataFrame:
    """Capture routing and compare unsafe with safe prompts; the table is kept as experts.parquet."""
    import pandas as pd

    path = session.folder.path / "experts.parquet"
    counts = capture_routing(session)
    kinds = {prompt_set.spec.name: prompt_set.spec.kind for prompt_set in session.plan.sets}
    states = session.folder.state["stages"]
    key = fingerprint([[task, kinds[task], states[f"capture {task}"]["fingerprint"]] for task in counts])
    if not session.folder.is_done("expert table", key, [path]):
        with session.folder.stage("expert table", key):
            unsafe = join([counts[task] for task in counts if kinds[task] == "harmful"])
            safe = join([counts[task] for task in counts if kinds[task] == "benign"])
            table = expert_table(unsafe, safe)
            write_whole(path, lambda temporary: table.to_parquet(temporary, index=False))
    return pd.read_parquet(path)


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
    table = make_expert_table(session)
    return select_experts(
        table,
        phase=settings.phase,
        method=settings.method,
        top_k=settings.at_most,
        threshold=settings.threshold,
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
    write_json(
        session.folder.variant(variant.name) / "selection.json",
        {
            "method": selection.method,
            "phase": selection.phase,
            "experts": [list(expert) for expert in selection.experts],
            "overlap_with_selection": overlap,
        },
    )
