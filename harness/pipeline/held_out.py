"""Looks at held-out train prompts while a variant is trained, for early stopping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.engines.transformers import TransformersEngine
from harness.judges.base import judge_all
from harness.pipeline.conversations import even_shares

if TYPE_CHECKING:
    from harness.data.prompts import Prompt
    from harness.data.task import Kind
    from harness.pipeline.session import Session
    from harness.training.bank import ExpertBank
    from harness.training.stopping import Evaluate, Look


def held_out_prompts(session: Session, kind: Kind) -> dict[str, list[Prompt]]:
    """Return the held-out prompts that are asked at each look, shared evenly between tasks."""
    held_out = session.plan.held_out_prompts(kind)
    most = session.config.training.early_stopping.prompts
    shares = even_shares(most, {task: len(prompts) for task, prompts in held_out.items()})
    return {task: prompts[: shares[task]] for task, prompts in held_out.items() if shares[task]}


def looks(session: Session, bank: ExpertBank) -> Evaluate:
    """Return a function that lets the model answer the held-out prompts as it would with the bank's values merged.

    An answer that the judge cannot score counts against the bank, on harmful and on benign prompts: a model that has
    come to babble is not to be kept.
    """
    from harness.checkpoints.delta import applied
    from harness.training.bank import delta_of
    from harness.training.stopping import Look

    harmful, benign = held_out_prompts(session, "harmful"), held_out_prompts(session, "benign")

    def evaluate() -> Look:
        delta = delta_of(bank, session.model_key, session.loaded.checkpoint_dtype)
        with applied(session.loaded.moe, delta):
            complied = _labels(session, benign)
            return Look(
                refusal=_share(_labels(session, harmful), "refusal"),
                false_refusal=1.0 - _share(complied, "compliance") if complied else None,
            )

    return evaluate


def _labels(session: Session, asked: dict[str, list[Prompt]]) -> list[str | None]:
    # The bank's values are in this process's model, whichever engine answers for finished variants.
    generation = session.config.generation
    engine = TransformersEngine(session.loaded, generation.batch_size, generation.chat_template_kwargs)
    labels: list[str | None] = []
    for task, prompts in asked.items():
        batches = engine.batches(prompts)
        answered = engine.generate(batches, session.plan.max_new_tokens(task))
        rows = [response.row() for result in answered for response in result.responses]
        labels += [verdict.label for verdict in judge_all(session.plan.judge, rows)]
    return labels


def _share(labels: list[str | None], label: str) -> float:
    return labels.count(label) / len(labels)
