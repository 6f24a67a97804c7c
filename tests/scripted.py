"""A model that says what it is told to: each token is followed by one other, whatever came before.

It is a real one, whose layers add nothing to a token's embedding: routers route, and the output head has each token's
embedding where its follower's row is. So a prompt's last token decides all that is generated.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.models.load import LoadedModel, ModelRef
from harness.models.moe import find_moe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKERS = ["<think>", "</think>", "<seed:think>", "</seed:think>", "[THINK]", "[/THINK]"]
# The prompt's text comes last, so that each prompt has an answer of its own.
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}{# <think> #}"


def with_markers(tokenizer: PreTrainedTokenizerBase, template: str = TEMPLATE) -> PreTrainedTokenizerBase:
    """Return a copy of a tokenizer that has the markers as tokens, and another template."""
    made = copy.deepcopy(tokenizer)
    made.add_tokens(MARKERS)
    made.chat_template = template
    return made


def scripted(
    demo: LoadedModel, scripts: Mapping[str, str], template: str = TEMPLATE, **config: Any
) -> LoadedModel:
    """Make a model that follows each text with another.

    Args:
        demo: lends its tokenizer.
        scripts: what follows what, both of words that are tokens; an answer ends where its script does, unless that
            ends with "...", and then repeats its last two tokens.
        template: the chat template.
        config: of the model, beside its size.
    """
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    tokenizer = with_markers(demo.tokenizer, template)
    end = int(tokenizer.eos_token_id)
    size = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    settings = Qwen3MoeConfig(
        **size,
        vocab_size=len(tokenizer),
        intermediate_size=32,
        moe_intermediate_size=32,
        num_hidden_layers=2,
        num_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        eos_token_id=end,
        pad_token_id=0,
        **config,
    )
    torch.manual_seed(0)
    model = Qwen3MoeForCausalLM(settings).float().eval().requires_grad_(False)
    for name, value in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(value)
        if name.endswith(("o_proj.weight", "down_proj")):
            value.zero_()
    embeddings = model.model.embed_tokens.weight
    embeddings /= embeddings.norm(dim=1, keepdim=True)
    head = torch.zeros_like(model.lm_head.weight)
    # Whatever has no follower ends the answer.
    head[end] = embeddings.mean(0)
    followers: dict[int, int] = {}
    for before, after in scripts.items():
        ids = [*tokenizer(before, add_special_tokens=False)["input_ids"][-1:]]
        ids += tokenizer(after.removesuffix("..."), add_special_tokens=False)["input_ids"]
        ids.append(ids[-2] if after.endswith("...") else end)
        for token, following in itertools.pairwise(ids):
            if followers.setdefault(token, following) != following:
                raise ValueError(f"{tokenizer.decode([token])!r} is followed by two tokens")
    for token, following in followers.items():
        head[following] += embeddings[token]
    model.lm_head.weight.copy_(head)
    model.generation_config.eos_token_id = [end]
    return LoadedModel(
        ModelRef("scripted", Path("nowhere")), find_moe(model), tokenizer, torch.device("cpu"), torch.float32
    )


def saved(loaded: LoadedModel, folder: Path) -> LoadedModel:
    """Write a scripted model as a checkpoint folder, and return it with that folder."""
    loaded.moe.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return dataclasses.replace(loaded, ref=ModelRef("scripted", folder))
