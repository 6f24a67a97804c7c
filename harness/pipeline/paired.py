"""The paired score: experts that serve the model's own compliant answers more than refusals of the same prompts.

The idea of pairs that differ in behaviour, not in topic, is SteerMoE's (arXiv:2509.09660).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.base.files import read_jsonl
from harness.base.progress import progress, say
from harness.data.refusals import refusals_for
from harness.experts.permutation import FEWEST_PROMPTS
from harness.judges.base import judge_all
from harness.routing.capture import RoutingCapture
from harness.routing.files import load_counts

if TYPE_CHECKING:
    from harness.data.conversation import Asked
    from harness.data.prompts import Prompt
    from harness.pipeline.session import Session


def paired_key(session: Session) -> str:
    """Return a fingerprint of what the score depends on besides captured answers."""
    asked = {task: refusals_for(prompts, session.config.seed) for task, prompts in _harmful(session).items()}
    return session.key(refusals=asked, judge=session.plan.judge.fingerprint)


def paired_differences(session: Session) -> np.ndarray | None:
    """Return each expert's share of the tokens of compliant answers less its share of those of refusals, [L, E].

    Of prompts that base refuses there is no pair. None where fewer pairs are left than can be compared.
    """
    used, tokens, prompts, refusals = [], 0, [], []
    for task, asked in _harmful(session).items():
        layout = session.folder.layout
        answers, counts = read_jsonl(layout.captured_answers(task)), load_counts(layout.routing(task))
        verdicts = judge_all(session.plan.judge, answers)
        complied = {verdict.id for verdict in verdicts if verdict.label == "compliance"}
        rows = [row for row, id in enumerate(counts.ids) if id in complied]
        own, of_answer = counts.of("answer")
        used.append(own[rows].sum(0))
        tokens += int(of_answer[rows].sum())
        pairs = zip(asked, refusals_for(asked, session.config.seed), strict=True)
        kept = [pair for pair in pairs if pair[0].id in complied]
        prompts += [prompt.asked for prompt, _ in kept]
        refusals += [refusal for _, refusal in kept]
    if len(prompts) < FEWEST_PROMPTS or tokens == 0:
        n = sum(map(len, _harmful(session).values()))
        say(
            f"paired is left out: base complied with {len(prompts)} of {n} harmful identify prompts, {FEWEST_PROMPTS} "
            "are needed"
        )
        return None
    difference: np.ndarray = np.sum(used, axis=0) / tokens - _use_of_refusals(session, prompts, refusals)
    return difference


def _harmful(session: Session) -> dict[str, list[Prompt]]:
    asked = session.plan.prompts("identify", "harmful")
    return {task: prompts for task, prompts in asked.items() if prompts}


def _use_of_refusals(session: Session, prompts: list[Asked], refusals: list[str]) -> np.ndarray:
    """Return each expert's share of the tokens of refusals, [L, E]; as when generated, the last one is not routed."""
    import torch

    from harness.training.examples import collate, make_examples

    loaded, chat = session.loaded, session.engine.chat
    moe, pad = loaded.moe, int(loaded.tokenizer.pad_token_id)
    end = chat.turn.end(loaded.ends)
    examples = make_examples(chat, prompts, refusals, [True] * len(prompts), end, "refuse")
    size, capture = session.config.generation.batch_size, RoutingCapture(moe)
    used, tokens = torch.zeros(len(moe.layers), moe.n_experts, dtype=torch.int64), 0
    with (
        torch.inference_mode(),
        capture.installed(),
        progress("paired score", len(examples), "refusals") as advance,
    ):
        for at in range(0, len(examples), size):
            part = examples[at : at + size]
            batch = collate(part, pad, loaded.device)
            moe.model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
                logits_to_keep=1,
            )
            width = batch.input_ids.shape[1]
            lengths = torch.tensor([len(example.answer) for example in part])[:, None]
            column = torch.arange(width)
            answered = (column >= width - lengths) & (column < width - 1)
            chosen = capture.take(len(part)).experts.cpu()[:, answered].long()
            used += torch.stack([layer.flatten().bincount(minlength=moe.n_experts) for layer in chosen])
            tokens += int(answered.sum())
            advance(len(part))
    return (used.double() / tokens).numpy()
