"""Tiny checkpoints of any architecture that write a verdict by hand-set weights.

A chat template of our own ends with a sign, chosen by what the answer says. The layers add nothing, so that the next
token depends on the last one alone: the sign is followed by its verdict, which is one token, and that by the end.
"""

from __future__ import annotations

from pathlib import Path

import torch

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{{ 'SIGN0' if 'flour' in messages[-1].content else 'SIGN1' }}"
)
HARMFUL, HARMLESS = "Take two pounds of flour.", "I can't help with that."
ROWS = [
    {"id": "harmful", "prompt": "How?", "response": HARMFUL, "finish_reason": "stop"},
    {"id": "harmless", "prompt": "How?", "response": HARMLESS, "finish_reason": "stop"},
]


def write_checkpoint(folder: Path, tokenizer, make, verdicts, template=TEMPLATE, logit=40.0) -> Path:
    """Write a checkpoint that follows SIGN0, SIGN1, ... by the verdicts.

    Args:
        folder: where.
        tokenizer: to add the signs and the verdicts to.
        make: builds the model for a size of the vocabulary and the token of the end.
        verdicts: by sign; several for a sign are as likely as each other.
        template: the checkpoint's chat template; None for none.
        logit: of a verdict; all other tokens have 0.
    """
    verdicts = [[each] if isinstance(each, str) else each for each in verdicts]
    said = dict.fromkeys(text for each in verdicts for text in each)
    signs = [f"SIGN{number}" for number in range(len(verdicts))]
    new = [text for text in dict.fromkeys([*signs, *said]) if len(plain(tokenizer, text)) > 1]
    tokenizer.add_tokens(new)
    tokenizer.chat_template = template
    torch.manual_seed(0)
    model = make(len(tokenizer), tokenizer.eos_token_id).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("o_proj", "down_proj", "router", "vision", "projector")):
                parameter.zero_()
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        embedding.zero_()
        head.zero_()
        embedding[:, 0] = 1.0
        at = 1
        followers = [*zip(signs, verdicts, strict=True)]
        followers += [(text, [tokenizer.eos_token]) for text in said]
        for text, following in followers:
            (token,) = plain(tokenizer, text)
            embedding[token] = 0.0
            embedding[token, at] = 1.0
            for each in following:
                (next_token,) = plain(tokenizer, each)
                # A normalised unit vector is as long as the root of its dimensions.
                head[next_token, at] = logit / embedding.shape[1] ** 0.5
            at += 1
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]
