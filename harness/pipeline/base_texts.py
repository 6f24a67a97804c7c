"""Base's own answers to test prompts, on which variants are compared with base, and how a model reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.base.files import read_jsonl, write_json
from harness.base.fingerprint import fingerprint
from harness.data.conversation import asked_in
from harness.data.duplicates import near_duplicate_groups
from harness.metrics.route_drift import KINDS, PHASES, Kind, route_drift
from harness.routing.capture import RoutingCapture
from harness.routing.changes import Changes, Routes, changes, shared_end, shared_start

if TYPE_CHECKING:
    from harness.interventions.base import Prepared
    from harness.models.load import LoadedModel
    from harness.pipeline.session import Session
    from harness.training.answers import Answers
    from harness.training.examples import Batch, Example

_BATCH = 16

Rows = dict[Kind, list[dict[str, Any]]]
"""Base's answers by kind of prompt."""


class Texts(NamedTuple):
    """Prompts with base's answers, as base reads them.

    Attributes:
        examples: their tokens.
        leads: how many of an answer's first tokens are the template's own, such as an empty thought.
        batches: places of the examples that are read together.
        groups: of near-duplicate prompts, the group of each example.
    """

    examples: list[Example]
    leads: list[int]
    batches: list[list[int]]
    groups: list[int]

    @property
    def groups_as_read(self) -> list[int]:
        """The groups in the order in which the batches are read."""
        return [self.groups[place] for places in self.batches for place in places]


class Read(NamedTuple):
    """A batch, as a model read it."""

    answers: Answers
    routes: Routes | None


def rows_to_compare(session: Session, made: Prepared) -> Rows:
    """Return base's answers that a variant is compared on; none for one that only answers the prompts of the claim."""
    if session.plan.is_limited(made.variant):
        return {}
    return {kind: base_answers(session, kind) for kind in KINDS}


def base_answers(session: Session, kind: Kind) -> list[dict[str, Any]]:
    """Return base's answers to the test prompts of a kind, as many per task, up to the number in the settings."""
    base, plan = session.folder.layout.variant("base"), session.plan
    tasks = [
        task for task, prompts in plan.prompts("test", kind).items() if prompts and not plan.opening(task)
    ]
    share = -(-session.config.evaluation.drift_answers // len(tasks)) if tasks else 0
    # Of several answers to a prompt the first: as many prompts whatever the number of answers.
    first = {
        task: [row for row in read_jsonl(base.responses(task)) if row.get("number", 1) == 1] for task in tasks
    }
    rows = [row for task in tasks for row in first[task][:share]]
    return [row for row in rows if row["response"].strip()]


def drift_key(session: Session, made: Prepared, rows: Rows) -> str:
    """Return the fingerprint of a comparison on some answers."""
    told = {
        kind: [[row["prompt"], row["response"], row["finish_reason"]] for row in rows[kind]] for kind in rows
    }
    return session.key(made=made.fingerprint, answers=fingerprint(told), seed=session.config.seed)


def texts_of(session: Session, rows: Sequence[dict[str, Any]]) -> Texts:
    """Return prompts and answers as base's tokens, in batches of like length; base has to be the one that answers."""
    from harness.training.examples import make_examples

    loaded, chat = session.loaded, session.engine.chat
    prompts, answers = [asked_in(row) for row in rows], [row["response"] for row in rows]
    finished = [row["finish_reason"] == "stop" for row in rows]
    examples = make_examples(chat, prompts, answers, finished, chat.turn.end(loaded.ends), "retain")
    lead = chat.markers.continuation(chat.turn.lead)
    leads = [shared_start(lead, example.answer) for example in examples]
    # All models read them in one order, so that tokens meet their own.
    order = sorted(range(len(rows)), key=lambda i: len(examples[i].answer))
    batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
    groups = near_duplicate_groups([row["prompt"] for row in rows]).tolist() if rows else []
    return Texts(examples, leads, batches, groups)


def read(loaded: LoadedModel, examples: Sequence[Example]) -> tuple[Batch, Read]:
    """Take a batch through a model, as far as its answers are predicted."""
    from harness.training.answers import answers_of
    from harness.training.examples import collate

    moe = loaded.moe
    batch = collate(examples, int(loaded.tokenizer.pad_token_id), loaded.device)
    if not moe.layers:
        return batch, Read(answers_of(moe.model, batch), None)
    recorder = RoutingCapture(moe, logits=all(layer.router is not None for layer in moe.layers))
    with recorder.installed():
        answers = answers_of(moe.model, batch)
        captured = recorder.take(len(batch.input_ids))
    return batch, Read(answers, Routes(captured.experts, captured.logits))


def read_as_base(session: Session, texts: Texts) -> list[Read]:
    """Return how base reads each batch, its routes in host memory: a distribution per token and layer is much.

    Only hidden states of base are kept; its head makes logits of them again.
    """

    def kept(places: Sequence[int]) -> Read:
        _, own = read(session.loaded, [texts.examples[i] for i in places])
        return own._replace(routes=None if own.routes is None else own.routes.on_host())

    key = ("base's answers", fingerprint([[e.prompt, e.answer] for e in texts.examples]))
    return session.model.once(key, lambda: [kept(places) for places in texts.batches])


def changes_of(
    texts: Texts, places: Sequence[int], base: Routes, own: Routes, read: Sequence[Example] | None = None
) -> Changes:
    """Compare the routes of a batch.

    Args:
        texts: the examples as base reads them.
        places: those of the batch.
        base: base's routes.
        own: the variant's.
        read: all examples as the variant reads them, where it reads other prompts.
    """
    before, leads = texts.examples, texts.leads
    both = [shared_end(before[i].prompt, (read or before)[i].prompt) + leads[i] for i in places]
    return changes(base, own, [len(before[i].answer) - leads[i] for i in places], both)


class Compared(NamedTuple):
    """The routes of all texts beside base's, with the group of near-duplicates of each."""

    routes: Changes
    groups: list[int]


def joined(texts: Texts, parts: Sequence[Changes]) -> Compared:
    """Put the rows of all batches one after another."""
    tokens, kept = (np.concatenate([part[field] for part in parts], axis=1) for field in (0, 1))
    known = [part.divergence for part in parts if part.divergence is not None]
    routes = Changes(tokens, kept, np.concatenate(known, axis=1) if known else None)
    return Compared(routes, texts.groups_as_read)


def write_routes(
    path: Path, reason: str | None, layers: tuple[int, ...], found: Mapping[Kind, Compared | None], seed: int
) -> None:
    """Write routes.json.

    Args:
        path: of the file.
        reason: why nothing was compared.
        layers: true indices of the MoE layers.
        found: the changes by kind of prompt.
        seed: of the intervals.
    """
    figures = [
        figure._asdict()
        for kind, compared in found.items()
        if compared is not None
        for place, phase in enumerate(PHASES)
        for figure in route_drift(
            kind, phase, layers, *_of_phase(compared.routes, place), seed, compared.groups
        )
    ]
    write_json(path, {"not_compared": reason, "figures": figures})


def _of_phase(routes: Changes, place: int) -> tuple[Any, Any, Any]:
    divergence = routes.divergence
    return routes.tokens[place], routes.kept[place], None if divergence is None else divergence[place]
