"""Trains the demo model: a Qwen3-MoE of 3.6 million parameters, from scratch, on the closed world's text.

Its shape, chat template and card are those of the shipped model (harness/models/demo/).
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.progress import progress
from harness.models.load import DEMO_FOLDER
from harness.zoo.demo_tasks import held_out_prompts
from harness.zoo.demo_world import Conversation, conversations

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>")
_VOCABULARY = 1500
_BATCH = 64
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class _Example:
    tokens: list[int]
    prompt_tokens: int


def build_demo(out: Path, seed: int = 0, epochs: int = 20, peak_rate: float = 4e-3) -> None:
    """Train tokenizer and model and save both in `out`, the weights in bfloat16.

    The same seed gives the same weights on one machine with the same number of threads.

    Args:
        out: folder for the checkpoint; made if it is missing.
        seed: decides the text, the initial weights and the order.
        epochs: passes, each over about 5,500 newly drawn conversations.
        peak_rate: AdamW's learning rate after warm-up, before it falls to zero along a cosine.
    """
    import torch

    held_out = held_out_prompts()
    tokenizer = _tokenizer(conversations(seed, 0, held_out, made_up=0))
    torch.manual_seed(seed)
    model = _model(tokenizer)
    _train(model, tokenizer, seed, epochs, peak_rate, held_out)
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    shutil.copyfile(DEMO_FOLDER / "README.md", out / "README.md")


def _tokenizer(text: Sequence[Conversation]) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = (part for c in text for part in (c.system, c.prompt, c.answer) if part)
    roles = ["system", "user", "assistant"] * len(text)  # often enough to become one token each
    tokenizer.train_from_iterator([*lines, *roles], trainer)
    pad, _, end = _SPECIAL
    fast: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token=end, padding_side="left", model_max_length=512
    )
    fast.chat_template = (DEMO_FOLDER / "chat_template.jinja").read_text(encoding="utf-8")
    return fast


def _model(tokenizer: PreTrainedTokenizerBase) -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig.from_pretrained(
        DEMO_FOLDER,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    config._experts_implementation = "grouped_mm"
    return Qwen3MoeForCausalLM(config)


def _examples(text: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase) -> list[_Example]:
    examples = []
    for conversation in text:
        messages = [{"role": "user", "content": conversation.prompt}]
        if conversation.system is not None:
            messages.insert(0, {"role": "system", "content": conversation.system})
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        start = tokenizer.encode(prompt, add_special_tokens=False)
        answer = tokenizer.encode(f"{conversation.answer}<|im_end|>", add_special_tokens=False)
        examples.append(_Example([*start, *answer], len(start)))
    return examples


def _batches(examples: Sequence[_Example], draw: random.Random) -> Iterator[Sequence[_Example]]:
    """Yield batches of about equal length in random order, so that little is padding."""
    ordered = sorted(draw.sample(examples, len(examples)), key=lambda example: len(example.tokens))
    batches = [ordered[start : start + _BATCH] for start in range(0, len(ordered), _BATCH)]
    draw.shuffle(batches)
    yield from batches


def _tensors(batch: Sequence[_Example], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids, attention mask, and labels (the ids of answer tokens, -100 elsewhere)."""
    import torch

    rows = [torch.tensor(example.tokens) for example in batch]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    place = torch.arange(ids.shape[1])
    prompts, ends = torch.tensor([[example.prompt_tokens, len(example.tokens)] for example in batch]).T
    filled = place < ends[:, None]
    labels = ids.where(filled & (place >= prompts[:, None]), _IGNORED)
    return ids, filled.long(), labels


def _loss(model: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the answers' cross-entropy plus the router's balance loss; only answer tokens meet the output head."""
    from torch.nn.functional import cross_entropy
    from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

    config = model.config
    output = model.model(ids, attention_mask=mask, output_router_logits=True)
    answered = labels[:, 1:] != _IGNORED
    logits = model.lm_head(output.last_hidden_state[:, :-1][answered])
    balance = load_balancing_loss_func(
        output.router_logits, config.num_experts, config.num_experts_per_tok, mask
    )
    answer_loss: torch.Tensor = cross_entropy(logits, labels[:, 1:][answered])
    loss: torch.Tensor = answer_loss + config.router_aux_loss_coef * balance
    return loss


def _train(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    epochs: int,
    peak_rate: float,
    held_out: frozenset[str],
) -> None:
    import torch

    draw = random.Random(f"demo order {seed}")
    steps = epochs * math.ceil(len(conversations(seed, 0, held_out)) / _BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    model.train()
    with progress("train the demo model", steps, "steps") as advance:
        for epoch in range(epochs):
            for batch in _batches(_examples(conversations(seed, epoch, held_out), tokenizer), draw):
                loss: Any = _loss(model, *_tensors(batch, tokenizer.pad_token_id))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                advance(1)
    model.eval()


def _rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: linear warm-up over 50 steps, then a cosine to zero."""
    warm_up = 50
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
