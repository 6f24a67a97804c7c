"""The stage that measures how far a variant has moved from base on benign text: cheap, and finer than any rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError
from harness.base.files import read_json, read_jsonl, write_json
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress
from harness.interventions.apply import active
from harness.metrics.drift import Share, drift

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.experts.select import ExpertSelection
    from harness.interventions.apply import Variant
    from harness.pipeline.session import Session

_BATCH = 16


def measure_drift(
    session: Session,
    variant: Variant,
    state: str,
    selection: ExpertSelection | None,
    delta: ExpertDelta | None,
) -> dict[str, Any] | None:
    """Compare a variant with base on base's own answers to benign test prompts; kept as drift.json.

    Args:
        session: the run; its model is in base's state.
        variant: which variant.
        state: fingerprint of what is done to the model.
        selection: the experts that the variant acts on.
        delta: the trained experts.

    Returns:
        perplexity, kl, low, high, answers and tokens, or None where nothing is measured.

    Raises:
        HarnessError: a log-probability is no number.
    """
    rows = _answers(session)
    if not rows:
        return None
    path = session.folder.variant(variant.name) / "drift.json"
    key = session.key(
        state=state,
        system_prompt=variant.spec.system_prompt,
        answers=fingerprint([[row["prompt"], row["response"], row["finish_reason"]] for row in rows]),
        seed=session.config.seed,
    )
    if not session.folder.is_done(f"drift {variant.name}", key, [path]):
        with session.folder.stage(f"drift {variant.name}", key):
            found = drift(_shares(session, variant, rows, selection, delta), session.config.seed)
            write_json(path, None if found is None else found._asdict())
    kept: dict[str, Any] | None = read_json(path)
    return kept


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


def _shares(
    session: Session,
    variant: Variant,
    rows: list[dict[str, Any]],
    selection: ExpertSelection | None,
    delta: ExpertDelta | None,
) -> list[Share]:
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
        variant.spec.system_prompt: chat.tokens(prompts, variant.spec.system_prompt),
    }

    def examples(system_prompt: str | None) -> list[Example]:
        return [
            Example(tuple(prompt), text, "retain")
            for prompt, text in zip(asked[system_prompt], texts, strict=True)
        ]

    # Answers of like length share a batch. Both sides have them in one order, so that tokens meet their own.
    order = sorted(range(len(rows)), key=lambda place: len(texts[place]))
    before, after = examples(None), examples(variant.spec.system_prompt)
    batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
    pad = int(loaded.tokenizer.pad_token_id)
    shares: list[Share] = []
    with torch.inference_mode(), progress(f"drift {variant.name}", len(rows), "answers") as advance:
        # Of base only hidden states are kept; the head, which no variant trains, makes logits of them again.
        base = [
            answers_of(loaded.moe.model, collate([before[i] for i in b], pad, loaded.device)) for b in batches
        ]
        with active(variant, loaded.moe, selection, delta):
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
                    raise HarnessError(f"drift {variant.name}: a log-probability is not a number")
                parts = figures.split([len(texts[place]) for place in places], dim=1)
                shares += [Share(part.shape[1], *part.sum(1).tolist()) for part in parts]
                advance(len(places))
    return shares
