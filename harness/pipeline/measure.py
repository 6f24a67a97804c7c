"""The stages that measure a variant beside its verdicts: capability, and drift from base on benign text.

Drift is cheap, and finer than any rate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError
from harness.base.files import read_jsonl, write_json
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress
from harness.data.conversation import asked_in
from harness.metrics.drift import Share, drift
from harness.pipeline.answer import answering
from harness.runs.layout import PATHS
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.interventions.base import Prepared
    from harness.pipeline.session import Session

_BATCH = 16
_VARIANT = PATHS.variant("{made.name}")


def is_evaluated(session: Session, made: Prepared) -> bool:
    """Say whether an earlier run finished all that needs the engine to answer as this variant."""
    plan = session.plan
    answered = all(
        answering(session, made, task).is_done(session, made, task)
        for task in plan.test_prompts(made.variant)
    )
    has_capability = plan.config.capability.tasks and not plan.is_limited(made.variant)
    return answered and (not has_capability or _capability.is_done(session, made))


def measure_capability(session: Session, made: Prepared) -> None:
    """Run lm-eval on a variant; kept, with a score for each item, as capability.json.

    Not of a variant that only answers the prompts of the claim.
    """
    if session.config.capability.tasks and not session.plan.is_limited(made.variant):
        _capability(session, made)
    else:
        # That of earlier settings would be taken for this run's.
        session.folder.layout.variant(made.name).capability.unlink(missing_ok=True)


def _capability_key(session: Session, made: Prepared) -> str:
    return session.key(
        made=made.fingerprint,
        capability=session.config.capability.deciding("measures"),
        tasks=session.plan.capability,
        seed=session.config.seed,
    )


@stage("capability {made.name}", writes=str(_VARIANT.capability), key=_capability_key)
def _capability(session: Session, made: Prepared) -> None:
    from harness.capability.lm_eval import run_capability

    settings = session.config.capability
    results = run_capability(
        session.engine,
        settings.tasks,
        include=session.config.include,
        data_dirs=session.config.data_dir,
        limit=settings.limit,
        batch_size=settings.batch_size,
        seed=session.config.seed,
        num_fewshot=settings.num_fewshot,
        apply_chat_template=settings.chat_template,
        system_prompt=made.system_prompt,
        description=f"capability {made.name}",
    )
    path = session.folder.layout.variant(made.name).capability
    write_json(path, {task: result.row() for task, result in results.items()})


def measure_drift(session: Session, made: Prepared) -> None:
    """Compare a variant with base on base's own answers to benign test prompts; kept as drift.json.

    Not a variant that only answers the prompts of the claim, and no other model, which may read other tokens.

    Args:
        session: the run; its model in memory is base.
        made: the variant.

    Raises:
        HarnessError: a log-probability is no number.
    """
    is_left_out = session.plan.is_limited(made.variant) or made.intervention.is_other_model
    rows = [] if is_left_out else _base_answers(session)
    if rows:
        _drift(session, made, rows)
    else:
        session.folder.layout.variant(made.name).drift.unlink(missing_ok=True)


def _drift_key(session: Session, made: Prepared, rows: list[dict[str, Any]]) -> str:
    return session.key(
        made=made.fingerprint,
        answers=fingerprint([[row["prompt"], row["response"], row["finish_reason"]] for row in rows]),
        seed=session.config.seed,
    )


@stage("drift {made.name}", writes=str(_VARIANT.drift), key=_drift_key)
def _drift(session: Session, made: Prepared, rows: list[dict[str, Any]]) -> None:
    result = drift(_shares(session, made, rows), session.config.seed)
    write_json(session.folder.layout.variant(made.name).drift, None if result is None else result._asdict())


def _base_answers(session: Session) -> list[dict[str, Any]]:
    """Return base's answers to benign test prompts, as many per task, up to the number in the settings."""
    base = session.folder.layout.variant("base")
    tasks = [task for task, prompts in session.plan.prompts("test", "benign").items() if prompts]
    share = -(-session.config.evaluation.drift_answers // len(tasks)) if tasks else 0
    # Of several answers to a prompt the first: as many prompts whatever the number of answers.
    first = {
        task: [row for row in read_jsonl(base.responses(task)) if row.get("number", 1) == 1] for task in tasks
    }
    rows = [row for task in tasks for row in first[task][:share]]
    return [row for row in rows if row["response"].strip()]


def _shares(session: Session, made: Prepared, rows: list[dict[str, Any]]) -> list[Share]:
    import torch
    from torch.nn.functional import cross_entropy, kl_div

    from harness.training.answers import answers_of
    from harness.training.examples import collate, make_examples

    loaded, chat = session.loaded, session.engine.chat
    prompts, answers = [asked_in(row) for row in rows], [row["response"] for row in rows]
    finished = [row["finish_reason"] == "stop" for row in rows]
    before = make_examples(chat, prompts, answers, finished, chat.turn.end(loaded.ends), "retain")
    asked = chat.tokens(prompts, made.system_prompt)
    after = [replace(example, prompt=tuple(prompt)) for example, prompt in zip(before, asked, strict=True)]
    # Answers of like length share a batch. Both sides have them in one order, so that tokens meet their own.
    order = sorted(range(len(rows)), key=lambda i: len(before[i].answer))
    batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
    pad, model = int(loaded.tokenizer.pad_token_id), loaded.moe.model
    shares: list[Share] = []
    with torch.inference_mode(), progress(f"drift {made.name}", len(rows), "answers") as advance:
        # Only hidden states of base are kept; the head, which no variant trains, makes logits of them again.
        base = session.model.once(
            ("base's answers", fingerprint([[e.prompt, e.answer] for e in before])),
            lambda: [answers_of(model, collate([before[i] for i in b], pad, loaded.device)) for b in batches],
        )
        with made.intervention.in_memory(loaded.moe, made):
            for places, reference in zip(batches, base, strict=True):
                batch = collate([after[i] for i in places], pad, loaded.device)

                def both(
                    logits: torch.Tensor, part: slice, targets: Any = batch.targets, base: Any = reference
                ) -> torch.Tensor:
                    surprise = cross_entropy(logits, targets[part], reduction="none")
                    expected, own = base.logits(part).log_softmax(-1), logits.log_softmax(-1)
                    divergence = kl_div(own, expected, reduction="none", log_target=True).sum(-1)
                    return torch.stack([surprise, divergence], dim=1)

                figures = answers_of(model, batch).values(both).double().cpu()
                if not torch.isfinite(figures).all():
                    raise HarnessError(f"drift {made.name}: a log-probability is not a number")
                parts = figures.split([len(before[i].answer) for i in places])
                shares += [Share(len(part), *part.sum(0).tolist()) for part in parts]
                advance(len(places))
    return shares
