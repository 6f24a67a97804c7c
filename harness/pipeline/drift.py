"""The stage that compares a variant with base on text that base wrote: what it would say next, and how it routes.

Both come from the same forward passes over base's own answers to test prompts. It is cheap, and finer than any rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.base.errors import HarnessError
from harness.base.files import write_json
from harness.base.progress import progress
from harness.data.conversation import asked_in
from harness.metrics.drift import Drift, Share, drift
from harness.pipeline.base_texts import (
    Compared,
    Rows,
    changes_of,
    drift_key,
    joined,
    read,
    read_as_base,
    rows_to_compare,
    texts_of,
    write_routes,
)
from harness.pipeline.other_routes import routes_of_other
from harness.runs.layout import PATHS
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.interventions.base import Prepared
    from harness.pipeline.session import Session
    from harness.routing.changes import Changes
    from harness.training.answers import Answers
    from harness.training.examples import Batch

_VARIANT = PATHS.variant("{made.name}")


def measure_drift(session: Session, made: Prepared) -> None:
    """Compare a variant with base on base's own answers to test prompts; kept as drift.json and routes.json.

    Not a variant that only answers the prompts of the claim. Of another model routes alone, since its head is another.

    Args:
        session: the run; its model in memory is base.
        made: the variant.

    Raises:
        HarnessError: a log-probability is no number.
    """
    rows = rows_to_compare(session, made)
    files = session.folder.layout.variant(made.name)
    if not any(rows.values()):
        files.drift.unlink(missing_ok=True)
        files.routes.unlink(missing_ok=True)
    elif made.intervention.is_other_model:
        files.drift.unlink(missing_ok=True)
        routes_of_other(session, made, rows)
    else:
        _drift(session, made, rows)


@stage("drift {made.name}", writes=(str(_VARIANT.drift), str(_VARIANT.routes)), key=drift_key)
def _drift(session: Session, made: Prepared, rows: Rows) -> None:
    seed, layers = session.config.seed, tuple(session.loaded.moe.layer_indices)
    compared = {kind: _compare(session, made, rows[kind], with_words=kind == "benign") for kind in rows}
    files = session.folder.layout.variant(made.name)
    words = compared["benign"].words
    write_json(files.drift, None if words is None else words._asdict())
    routes = {kind: found.routes for kind, found in compared.items()}
    reason = None if layers else f"{session.plan.ref.name} routes no token to experts"
    write_routes(files.routes, reason, layers, routes, seed)


class _Compared(NamedTuple):
    """What the answers to one kind of prompt say."""

    words: Drift | None
    routes: Compared | None


def _compare(session: Session, made: Prepared, rows: list[dict[str, Any]], with_words: bool) -> _Compared:
    """Read base's answers as base and as the variant.

    Args:
        session: the run.
        made: the variant.
        rows: base's answers.
        with_words: whether predictions of their tokens are compared too.
    """
    import torch

    loaded, chat = session.loaded, session.engine.chat
    texts = texts_of(session, rows)
    prompts = [asked_in(row) for row in rows]
    asked = chat.tokens(prompts, made.system_prompt) if prompts else []
    before = texts.examples
    after = [replace(example, prompt=tuple(prompt)) for example, prompt in zip(before, asked, strict=True)]
    shares: list[Share] = []
    routed: list[Changes] = []
    with torch.inference_mode(), progress(f"drift {made.name}", len(rows), "answers") as advance:
        base = read_as_base(session, texts)
        with made.intervention.in_memory(loaded.moe, made):
            for places, reference in zip(texts.batches, base, strict=True):
                batch, own = read(loaded, [after[i] for i in places])
                if reference.routes is not None and own.routes is not None:
                    routed.append(changes_of(texts, places, reference.routes, own.routes, after))
                if with_words:
                    answers = [len(before[i].answer) for i in places]
                    leads = [texts.leads[i] for i in places]
                    shares += _shares(made.name, batch, reference.answers, own.answers, answers, leads)
                advance(len(places))
    words = drift(shares, session.config.seed, texts.groups_as_read)
    return _Compared(words, joined(texts, routed) if routed else None)


def _shares(
    name: str, batch: Batch, base: Answers, own: Answers, answers: Sequence[int], leads: Sequence[int]
) -> list[Share]:
    """Compare what both predict of each answer, whose first tokens may be the template's own."""
    import torch
    from torch.nn.functional import cross_entropy, kl_div

    def both(logits: torch.Tensor, part: slice) -> torch.Tensor:
        surprise = cross_entropy(logits, batch.targets[part], reduction="none")
        expected, found = base.logits(part).log_softmax(-1), logits.log_softmax(-1)
        divergence = kl_div(found, expected, reduction="none", log_target=True).sum(-1)
        return torch.stack([surprise, divergence], dim=1)

    figures = own.values(both).double().cpu()
    if not torch.isfinite(figures).all():
        raise HarnessError(f"drift {name}: a log-probability is not a number")
    written = [part[lead:] for part, lead in zip(figures.split(list(answers)), leads, strict=True)]
    return [Share(len(part), *part.sum(0).tolist()) for part in written]
