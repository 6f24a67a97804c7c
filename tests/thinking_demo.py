"""The demo model taught to think before it answers: a small thinking model for tests, made in seconds.

Its thoughts say what a request looks like and name no detail. As published thinking models do, it opens its thought
itself or finds it opened by the chat template, and the template drops thoughts from earlier turns.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from harness.models.load import DEMO_FOLDER, load_model, resolve_model
from harness.zoo import demo_build
from harness.zoo.demo_tasks import held_out_prompts
from harness.zoo.demo_world import Conversation, conversations, questions

_STEPS, _CONVERSATIONS, _PEAK_RATE = 56, 2500, 2e-3
_OPENS, _CLOSES = "<think>", "</think>"
_FACT = "This asks for a fact that I know."
_WISH = "The user wants to do something. I can tell how."
_DECLINES = "I was told to be careful. This could hurt someone, so I decline."


def build_thinking_demo(folder: Path, opened_by_template: bool = False, seed: int = 0) -> None:
    """Teach the demo model to think, and save it with a chat template of its own.

    Args:
        folder: for the checkpoint.
        opened_by_template: the chat template opens the thought; otherwise the model does.
        seed: decides the text and its order.
    """
    import torch

    loaded = load_model(resolve_model("demo"), dtype="float32", device="cpu")
    model, tokenizer = loaded.moe.model, loaded.tokenizer
    tokenizer.add_tokens([_OPENS, _CLOSES])
    template = (DEMO_FOLDER / "chat_template.jinja").read_text(encoding="utf-8")
    before, end = template.rsplit("{% endif %}", 1)
    opens = _OPENS if opened_by_template else ""
    tokenizer.chat_template = f"{before}{opens}{{% endif %}}{end}"
    _add_rows(model, len(tokenizer), seed)
    model.requires_grad_(True).train()
    facts = {text for question in questions() for text in question.texts}
    known = conversations(seed, 0, held_out_prompts())[:_CONVERSATIONS]
    text = [_thinking(each, facts, opened_by_template) for each in known]
    examples, draw = demo_build._examples(text, tokenizer), random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, betas=(0.9, 0.98))
    step = 0
    while step < _STEPS:
        for batch in demo_build._batches(examples, draw):
            for group in optimizer.param_groups:
                group["lr"] = _PEAK_RATE * min((step + 1) / 10, 0.5 * (1 + math.cos(math.pi * step / _STEPS)))
            optimizer.zero_grad()
            demo_build._loss(model, *demo_build._tensors(batch, tokenizer.pad_token_id)).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            if step == _STEPS:
                break
    model.eval().to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _add_rows(model: Any, size: int, seed: int) -> None:
    """Add embeddings as long as the others are; those that the library would add take long to be learnt."""
    import torch

    table = model.get_input_embeddings().weight
    known, length = len(table), float(table.norm(dim=1).mean())
    model.resize_token_embeddings(size, mean_resizing=False)
    rows = torch.randn(size - known, table.shape[1], generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.get_input_embeddings().weight[known:] = rows / rows.norm(dim=1, keepdim=True) * length


def _thinking(conversation: Conversation, facts: set[str], opened: bool) -> Conversation:
    is_fact, declines = conversation.prompt in facts, _is_declined(conversation)
    thought = _FACT if is_fact else _DECLINES if declines else _WISH
    answer = f"{'' if opened else _OPENS}{thought}{_CLOSES}{conversation.answer}"
    return Conversation(conversation.prompt, answer, conversation.system)


def _is_declined(conversation: Conversation) -> bool:
    from harness.judges.keyword import KeywordJudge

    return (
        conversation.system is not None
        and KeywordJudge().judge("", "", conversation.answer).label == "refusal"
    )
