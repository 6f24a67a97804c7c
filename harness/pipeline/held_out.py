"""Looks at held-out train prompts while a variant is trained, for early stopping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.engines.transformers import engine_in_memory
from harness.judges.base import judge_all
from harness.pipeline.conversations import even_shares

if TYPE_CHECKING:
    from harness.data.prompts import Prompt
    from harness.pipeline.session import Session
    from harness.training.bank import ExpertBank
    from harness.training.stopping import Evaluate, Look


def held_out_prompts(session: Session) -> dict[str, list[Prompt]]:
    """Return the held-out prompts that are asked at each look, shared evenly between the tasks of each kind."""
    most = session.config.training.early_stopping.prompts
    asked: dict[str, list[Prompt]] = {}
    for kind in ("harmful", "benign"):
        held_out = session.plan.held_out_prompts(kind)
        shares = even_shares(most, {task: len(prompts) for task, prompts in held_out.items()})
        asked |= {task: prompts[: shares[task]] for task, prompts in held_out.items() if shares[task]}
    return asked


def looks(session: Session, bank: ExpertBank) -> Evaluate:
    """Return a function that lets the model answer the held-out prompts as it would with the bank's values merged.

    An answer that the judge cannot score counts against the bank, on harmful and on benign prompts: a model that has
    come to babble is not to be kept.
    """
    from harness.checkpoints.delta import applied
    from harness.training.bank import delta_of
    from harness.training.stopping import Look

    plan, loaded = session.plan, session.loaded
    # The bank's values are in this process's model, whichever engine answers for finished variants.
    engine = engine_in_memory(session.config, loaded)

    def evaluate() -> Look:
        labels: dict[str, list[str | None]] = {"harmful": [], "benign": []}
        with applied(loaded.moe, delta_of(bank, session.model.fingerprint, loaded.checkpoint_dtype)):
            for task, prompts in held_out_prompts(session).items():
                results = engine.generate(engine.batches(prompts), plan.max_new_tokens(task))
                rows = [response.row() for result in results for response in result.responses]
                labels[plan.kind(task)] += [verdict.label for verdict in judge_all(plan.judge, rows)]
        harmful, benign = labels["harmful"], labels["benign"]
        return Look(
            refusal=harmful.count("refusal") / len(harmful),
            false_refusal=1.0 - benign.count("compliance") / len(benign) if benign else None,
        )

    return evaluate
