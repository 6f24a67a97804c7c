"""Drift of routes where another model answers in place of base: both read the same tokens, one after the other.

The two are never in memory together. Base's routes are kept in host memory before base is freed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.base.fingerprint import fingerprint
from harness.base.progress import progress
from harness.metrics.route_drift import Kind
from harness.models.load import load_tokenizer, outline_model
from harness.pipeline.base_texts import (
    Compared,
    Rows,
    Texts,
    changes_of,
    drift_key,
    joined,
    read,
    read_as_base,
    rows_to_compare,
    texts_of,
    write_routes,
)
from harness.runs.layout import PATHS
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.interventions.base import Prepared
    from harness.models.load import LoadedModel, ModelRef
    from harness.models.moe import MoEModel
    from harness.pipeline.session import Session
    from harness.routing.changes import Routes


@contextmanager
def in_place_of_base(session: Session, made: Prepared) -> Iterator[None]:
    """Let the variant's own model answer inside the block, and compare its routes with base's while it is in memory."""
    rows = rows_to_compare(session, made)
    is_compared = any(rows.values())
    if (
        is_compared
        and not routes_of_other.is_done(session, made, rows)
        and not why_not_compared(session, made)
    ):
        _routes_of_base(session, rows)
    with session.answering_with(made.intervention.other_model(session.plan.ref)):
        yield
        if is_compared:
            routes_of_other(session, made, rows)


@stage("drift {made.name}", writes=str(PATHS.variant("{made.name}").routes), key=drift_key)
def routes_of_other(session: Session, made: Prepared, rows: Rows) -> None:
    """Compare the routes of another model with base's on base's tokens, in base's chat template; kept as routes.json.

    Where the model has answered already, it is loaded for this.
    """
    import torch

    path, layers = session.folder.layout.variant(made.name).routes, tuple(session.plan.outline.layer_indices)
    reason = why_not_compared(session, made)
    found: dict[Kind, Compared | None] = {}
    if reason is None:
        base = _routes_of_base(session, rows)
        with (
            session.holding(made.intervention.other_model(session.plan.ref)) as other,
            torch.inference_mode(),
        ):
            found = {kind: _compare(made.name, other.loaded, *base[kind]) for kind in rows}
    write_routes(path, reason, layers, found, session.config.seed)


def why_not_compared(session: Session, made: Prepared) -> str | None:
    """Return why the routes of another model cannot be compared with base's, or None; looked up once per model."""
    ref = made.intervention.other_model(session.plan.ref)
    return session.once(("why no routes", ref.path), lambda: _difference(session, ref))


def _difference(session: Session, ref: ModelRef) -> str | None:
    base, own = session.plan.outline, outline_model(ref, may_be_dense=True)
    for name, outline in ((session.plan.ref.name, base), (ref.name, own)):
        if not outline.layers:
            return f"{name} routes no token to experts"
    if _shape(own) != _shape(base):
        return f"{ref.name} has other MoE layers than base: {_in_words(own)}, not {_in_words(base)}"
    if load_tokenizer(ref).get_vocab() != load_tokenizer(session.plan.ref).get_vocab():
        return f"{ref.name} has another tokenizer than base"
    return None


def _shape(moe: MoEModel) -> tuple[list[int], int, int]:
    return moe.layer_indices, moe.n_experts, moe.experts_per_token


def _in_words(moe: MoEModel) -> str:
    layers = ", ".join(map(str, moe.layer_indices))
    return f"layers {layers} with {moe.n_experts} experts each, {moe.experts_per_token} per token"


def _routes_of_base(session: Session, rows: Rows) -> dict[Kind, tuple[Texts, list[Routes | None]]]:
    """Return base's tokens and routes by kind of prompt, read once for all variants."""
    import torch

    def read_all() -> dict[Kind, tuple[Texts, list[Routes | None]]]:
        texts = {kind: texts_of(session, rows[kind]) for kind in rows}
        with torch.inference_mode():
            return {
                kind: (each, [own.routes for own in read_as_base(session, each)])
                for kind, each in texts.items()
            }

    return session.once(("base's routes", fingerprint(rows)), read_all)


def _compare(name: str, loaded: LoadedModel, texts: Texts, base: list[Routes | None]) -> Compared | None:
    found: list[Any] = []
    with progress(f"drift {name}", len(texts.examples), "answers") as advance:
        for places, reference in zip(texts.batches, base, strict=True):
            _, own = read(loaded, [texts.examples[i] for i in places])
            if reference is not None and own.routes is not None:
                found.append(changes_of(texts, places, reference, own.routes))
            advance(len(places))
    return joined(texts, found) if found else None
