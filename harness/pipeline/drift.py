"""The stage that compares a variant with base on text that base wrote: what it would say next, and how it routes.

Both come from the same forward passes over base's own answers to test prompts. It is cheap, and finer than any rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.base.errors import HarnessError
from harness.base.files import read_jsonl, write_json
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress
from harness.data.conversation import asked_in
from harness.metrics.drift import Share, drift
from harness.metrics.route_drift import KINDS, PHASES, Kind, route_drift
from harness.routing.capture import RoutingCapture
from harness.routing.changes import Changes, Routes, changes, shared_end, shared_start
from harness.runs.layout import PATHS
from harness.runs.stages import stage

if TYPE_CHECKING:
    import torch

    from harness.interventions.base import Prepared
    from harness.models.moe import MoEModel
    from harness.pipeline.session import Session
    from harness.training.answers import Answers
    from harness.training.examples import Batch, Example

_BATCH = 16
_VARIANT = PATHS.variant("{made.name}")

Rows = dict[Kind, list[dict[str, Any]]]
"""Base's answers by kind of prompt."""


def measure_drift(session: Session, made: Prepared) -> None:
    """Compare a variant with base on base's own answers to test prompts; kept as drift.json and routes.json.

    Not a variant that only answers the prompts of the claim, and no other model, which may read other tokens.

    Args:
        session: the run; its model in memory is base.
        made: the variant.

    Raises:
        HarnessError: a log-probability is no number.
    """
    is_left_out = session.plan.is_limited(made.variant)
    rows: Rows = {} if is_left_out else {kind: _base_answers(session, kind) for kind in KINDS}
    files = session.folder.layout.variant(made.name)
    if not any(rows.values()):
        files.drift.unlink(missing_ok=True)
        files.routes.unlink(missing_ok=True)
    elif made.intervention.is_other_model:
        files.drift.unlink(missing_ok=True)
        _not_compared(session, made)
    else:
        _drift(session, made, rows)


def _drift_key(session: Session, made: Prepared, rows: Rows) -> str:
    told = {
        kind: [[row["prompt"], row["response"], row["finish_reason"]] for row in rows[kind]] for kind in rows
    }
    return session.key(made=made.fingerprint, answers=fingerprint(told), seed=session.config.seed)


@stage("drift {made.name}", writes=(str(_VARIANT.drift), str(_VARIANT.routes)), key=_drift_key)
def _drift(session: Session, made: Prepared, rows: Rows) -> None:
    seed, layers = session.config.seed, tuple(session.loaded.moe.layer_indices)
    compared = {kind: _compare(session, made, rows[kind], with_words=kind == "benign") for kind in rows}
    files = session.folder.layout.variant(made.name)
    words = drift(compared["benign"].shares, seed)
    write_json(files.drift, None if words is None else words._asdict())
    figures = [
        figure._asdict()
        for kind, found in compared.items()
        if found.routes is not None
        for place, phase in enumerate(PHASES)
        for figure in route_drift(kind, phase, layers, *_of_phase(found.routes, place), seed)
    ]
    reason = None if layers else f"{session.plan.ref.name} routes no token to experts"
    write_json(files.routes, {"not_compared": reason, "figures": figures})


@stage(
    "drift {made.name}",
    writes=str(_VARIANT.routes),
    key=lambda session, made: session.key(made=made.fingerprint),
)
def _not_compared(session: Session, made: Prepared) -> None:
    reason = "another model answers in place of base"
    write_json(session.folder.layout.variant(made.name).routes, {"not_compared": reason, "figures": []})


class _Compared(NamedTuple):
    """What the answers to one kind of prompt say."""

    shares: list[Share]
    routes: Changes | None


class _Read(NamedTuple):
    """A batch, as a model read it."""

    answers: Answers
    routes: Routes | None


def _base_answers(session: Session, kind: Kind) -> list[dict[str, Any]]:
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


def _compare(session: Session, made: Prepared, rows: list[dict[str, Any]], with_words: bool) -> _Compared:
    """Read base's answers as base and as the variant.

    Args:
        session: the run.
        made: the variant.
        rows: base's answers.
        with_words: whether predictions of their tokens are compared too.
    """
    import torch

    from harness.training.examples import collate, make_examples

    loaded, chat = session.loaded, session.engine.chat
    prompts, answers = [asked_in(row) for row in rows], [row["response"] for row in rows]
    finished = [row["finish_reason"] == "stop" for row in rows]
    before = make_examples(chat, prompts, answers, finished, chat.turn.end(loaded.ends), "retain")
    asked = chat.tokens(prompts, made.system_prompt) if prompts else []
    after = [replace(example, prompt=tuple(prompt)) for example, prompt in zip(before, asked, strict=True)]
    # What the template writes before an answer, such as an empty thought, is no token of the answer.
    lead = chat.markers.continuation(chat.turn.lead)
    leads = [shared_start(lead, example.answer) for example in before]
    # Answers of like length share a batch. Both sides have them in one order, so that tokens meet their own.
    order = sorted(range(len(rows)), key=lambda i: len(before[i].answer))
    batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
    pad = int(loaded.tokenizer.pad_token_id)

    def read(examples: Sequence[Example], places: Sequence[int]) -> tuple[Batch, _Read]:
        batch = collate([examples[i] for i in places], pad, loaded.device)
        return batch, _read(loaded.moe, batch)

    shares: list[Share] = []
    routed: list[Changes] = []
    with torch.inference_mode(), progress(f"drift {made.name}", len(rows), "answers") as advance:
        # Only hidden states of base are kept; the head, which no variant trains, makes logits of them again.
        base = session.model.once(
            ("base's answers", fingerprint([[e.prompt, e.answer] for e in before])),
            lambda: [_kept(read(before, places)[1]) for places in batches],
        )
        with made.intervention.in_memory(loaded.moe, made):
            for places, reference in zip(batches, base, strict=True):
                batch, own = read(after, places)
                lengths = [len(before[i].answer) for i in places]
                if reference.routes is not None and own.routes is not None:
                    both = [shared_end(before[i].prompt, after[i].prompt) + leads[i] for i in places]
                    said = [len(before[i].answer) - leads[i] for i in places]
                    routed.append(changes(reference.routes, own.routes, said, both))
                if with_words:
                    shares += _shares(made.name, batch, reference.answers, own.answers, lengths)
                advance(len(places))
    return _Compared(shares, _joined(routed) if routed else None)


def _read(moe: MoEModel, batch: Batch) -> _Read:
    """Take a batch through the model, as far as its answers are predicted."""
    from harness.training.answers import answers_of

    if not moe.layers:
        return _Read(answers_of(moe.model, batch), None)
    recorder = RoutingCapture(moe, logits=all(layer.router is not None for layer in moe.layers))
    with recorder.installed():
        answers = answers_of(moe.model, batch)
        captured = recorder.take(len(batch.input_ids))
    return _Read(answers, Routes(captured.experts, captured.logits))


def _kept(read: _Read) -> _Read:
    """Return what base read, with its routes in host memory: a distribution per token and layer is much."""
    return read._replace(routes=None if read.routes is None else read.routes.on_host())


def _shares(name: str, batch: Batch, base: Answers, own: Answers, lengths: Sequence[int]) -> list[Share]:
    """Compare what both predict of each answer."""
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
    return [Share(len(part), *part.sum(0).tolist()) for part in figures.split(list(lengths))]


def _joined(parts: Sequence[Changes]) -> Changes:
    """Put the rows of several batches one after another."""
    tokens, kept = (np.concatenate([part[field] for part in parts], axis=1) for field in (0, 1))
    known = [part.divergence for part in parts if part.divergence is not None]
    return Changes(tokens, kept, np.concatenate(known, axis=1) if known else None)


def _of_phase(routes: Changes, place: int) -> tuple[Any, Any, Any]:
    divergence = routes.divergence
    return routes.tokens[place], routes.kept[place], None if divergence is None else divergence[place]
