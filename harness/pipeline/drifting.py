"""The stage that measures how far a variant has moved from base on benign text: cheap, and finer than any rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError
from harness.base.files import read_json, read_jsonl, write_json
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress
from harness.metrics.drift import Share, drift
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.interventions.base import Prepared
    from harness.pipeline.session import Session

_BATCH = 16


def measure_drift(session: Session, made: Prepared) -> dict[str, Any] | None:
    """Compare a variant with base on base's own answers to benign test prompts; kept as drift.json.

    Args:
        session: the run; its model in memory is base.
        made: the variant.

    Returns:
        perplexity, kl, low, high, answers and tokens, or None where nothing is measured.

    Raises:
        HarnessError: a log-probability is no number.
    """
    rows = _answers(session)
    if not rows:
        return None
    _drift(session, made, rows)
    kept: dict[str, Any] | None = read_json(session.folder.variant(made.name) / "drift.json")
    return kept


def _drift_key(session: Session, made: Prepared, rows: list[dict[str, Any]]) -> str:
    return session.key(
        made=made.fingerprint,
        answers=fingerprint([[row["prompt"], row["response"], row["finish_reason"]] for row in rows]),
        seed=session.config.seed,
    )


@stage("drift {made.name}", writes="variants/{made.name}/drift.json", key=_drift_key)
def _drift(session: Session, made: Prepared, rows: list[dict[str, Any]]) -> None:
    found = drift(_shares(session, made, rows), session.config.seed)
    write_json(session.folder.variant(made.name) / "drift.json", None if found is None else found._asdict())


def _answers(session: Session) -> list[dict[str, Any]]:
    """Return base's answers to benign test prompts, as many of each task, up to the number that was asked for."""
    most = session.config.evaluation.drift_answers
    tasks = [
        read_jsonl(session.folder.responses("base", task))
        for task, prompts in session.plan.prompts("test", "benign").items()
        if prompts
    ]
    share = -(-most // len(tasks)) if tasks else 0
    return [row for rows in tasks for row in rows[:share] if row["response"].strip()]


def _shares(session: Session, made: Prepared, rows: list[dict[str, Any]]) -> list[Share]:
    import torch

    from harness.training.answers import answers_of
    from harness.training.examples import Example, collate

    loaded, chat = session.loaded, session.engine.chat
    prompts = [row["prompt"] for row in rows]
    encoded = chat.tokenizer([row["response"] for row in rows], add_special_tokens=False)["input_ids"]
    ends = [[loaded.end_of_turn] if row["finish_reason"] == "stop" else [] for row in rows]
    texts = [(*ids, *end) for ids, end in zip(encoded, ends, strict=True)]
    asked = {
        None: chat.tokens(prompts),
        made.system_prompt: chat.tokens(prompts, made.system_prompt),
    }

    def examples(system_prompt: str | None) -> list[Example]:
        return [
            Example(tuple(prompt), text, "retain")
            for prompt, text in zip(asked[system_prompt], texts, strict=True)
        ]

    # Answers of like length share a batch. Both sides have them in one order, so that tokens meet their own.
    order = sorted(range(len(rows)), key=lambda place: len(texts[place]))
    before, after = examples(None), examples(made.system_prompt)
    batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
    pad = int(loaded.tokenizer.pad_token_id)
    shares: list[Share] = []
    with torch.inference_mode(), progress(f"drift {made.name}", len(rows), "answers") as advance:
        # Of base only hidden states are kept; the head, which no variant trains, makes logits of them again.
        base = [
            answers_of(loaded.moe.model, collate([before[i] for i in b], pad, loaded.device)) for b in batches
        ]
        with made.intervention.in_memory(loaded.moe, made):
            for places, theirs in zip(batches, base, strict=True):
                batch = collate([after[i] for i in places], pad, loaded.device)
                mine = answers_of(loaded.moe.model, batch)

                def surprise(logits: torch.Tensor, part: slice, targets: Any = batch.targets) -> torch.Tensor:
                    return torch.nn.functional.cross_entropy(logits, targets[part], reduction="none")

                def divergence(logits: torch.Tensor, part: slice, other: Any = theirs) -> torch.Tensor:
                    expected, found = other.logits(part).log_softmax(-1), logits.log_softmax(-1)
                    return torch.nn.functional.kl_div(found, expected, reduction="none", log_target=True).sum(
                        -1
                    )

                figures = torch.stack([mine.values(surprise), mine.values(divergence)]).double().cpu()
                if not torch.isfinite(figures).all():
                    raise HarnessError(f"drift {made.name}: a log-probability is not a number")
                parts = figures.split([len(texts[place]) for place in places], dim=1)
                shares += [Share(part.shape[1], *part.sum(1).tolist()) for part in parts]
                advance(len(places))
    return shares
