"""Tiny random models of every MoE family that transformers can build without a hub.

One table: what a family's configuration needs besides the common shape, and the facts that `inspect` must find,
written down by hand.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from harness.models.auto import auto_class
from harness.models.unserved import refused

EXPERTS = 8
_K = 3  # No family's default, so that a number that was not read cannot be right by chance.

# Every configuration takes those that it knows.
_SHAPE: dict[str, Any] = {
    "vocab_size": 1500,
    "hidden_size": 32,
    "intermediate_size": 32,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
    "shared_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "sliding_window": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
    # Number of experts and k, as they are called somewhere.
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts"), _K),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    # Latent attention and its index.
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "index_topk": 512,
    "index_head_dim": 16,
    "index_n_heads": 2,
    # Linear attention and state spaces.
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_head_dim": 16,
    "linear_num_heads": 2,
    "swa_num_attention_heads": 2,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 16,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 1500,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_expand": 2,
    "mamba_d_state": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 8,
}
# Likewise for the towers that see and hear.
_TOWER: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "embed_dim", "d_model", "adapter_in_dim", "adapter_input_size"), 16),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "moe_intermediate_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "depth", "encoder_layers"), 1),
    **dict.fromkeys(
        ("num_attention_heads", "num_heads", "encoder_attention_heads", "num_key_value_heads"), 2
    ),
    # What they hand to the language model.
    **dict.fromkeys(("out_hidden_size", "text_hidden_size", "adapter_out_dim"), 32),
}


@dataclass(frozen=True)
class Family:
    """What a family's configuration needs, and the facts about its MoE layers.

    Attributes:
        moe_layers: true indices of the MoE layers; there are 3 layers.
        config: settings of the configuration, beside the common shape.
        text: settings of its text part, where it has parts.
        tower: settings of its other parts.
        k: experts per token.
        shared: shared experts.
        transposed, gate, biases, normed: layout of the experts' weights.
        router: whether there is one with one row an expert.
        since: the oldest transformers that it was tried with; older ones than 5.17 are not supported at all.
    """

    moe_layers: tuple[int, ...]
    config: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    tower: dict[str, Any] = field(default_factory=dict)
    k: int = _K
    shared: int = 0
    transposed: bool = False
    gate: str = "concatenated"
    biases: bool = False
    normed: bool = False
    router: bool = True
    since: str = "5.17"


_ALL, _LATER = (0, 1, 2), (1, 2)
_DENSE_FIRST = {"mlp_layer_types": ["dense", "sparse", "sparse"]}
_MIXED = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
_FULL = {"layer_types": ["full_attention"] * 3}
_TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_OCR = {
    "encoder_config": {**_TINY, "num_key_value_heads": 2},
    "sam_config": {**_TINY, "downsample_channels": [16, 16]},
}
_DOTS3 = {**_FULL, "shared_experts_intermediate_size": 16}
_MOE_TOWER = {"mlp_layer_types": ["sparse"], "num_local_experts": 4}
_DEEPSEEK_V4 = {
    "mlp_layer_types": ["hash_moe", "moe", "moe"],
    "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
}
_QWEN4 = {
    **_MIXED,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 512,
    "indexer_compress_ratio": 4,
}
_MUSE = {
    "projector_hidden_size": 16,
    "out_hidden_size": 64,
    "audio_config": {"hidden_sizes": [8] * 4, "depths": [1] * 4, "out_hidden_size": 32},
}


def _sections(*sizes: int, **more: Any) -> dict[str, Any]:
    """Return rotary settings with as many frequencies for time, height and width."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(sizes), **more}
    return {"rope_parameters": rope}


FAMILIES: dict[str, Family] = {
    "afmoe": Family(_LATER, {"num_dense_layers": 1}, shared=1),
    "aria": Family(_ALL, {"vision_config": _TINY}, shared=1, transposed=True, since="5.23"),
    "aria_text": Family(_ALL, shared=1, transposed=True, since="5.23"),
    "axk1": Family(_LATER, shared=1),
    "axk2": Family(_LATER, shared=1),
    "bailing_hybrid": Family(_LATER, {"layer_group_size": 3}, shared=1),
    "beam": Family(_LATER, _DENSE_FIRST),
    "cohere2_moe": Family(_ALL, shared=1),
    "deepseek_ocr2": Family(_LATER, {"vision_config": _OCR}, text=_DENSE_FIRST, shared=1),
    "deepseek_v2": Family(_LATER, shared=1),
    "deepseek_v3": Family(_LATER, shared=1),
    "deepseek_v32": Family(_LATER, shared=1),
    "deepseek_v4": Family(_ALL, _DEEPSEEK_V4, shared=1),
    "dots1": Family(_LATER, shared=1),
    "dots3_note": Family(_LATER, text=_DOTS3, tower=_MOE_TOWER, shared=1),
    "dots3_note_text": Family(_LATER, _DOTS3, shared=1),
    "ernie4_5_moe": Family(_LATER, shared=1),
    "ernie4_5_vl_moe": Family(
        _LATER,
        text={"moe_intermediate_size": [16, 24], **_DENSE_FIRST, **_sections(3, 3, 2)},
        shared=1,
    ),
    "exaone_moe": Family(_LATER, shared=1),
    "flex_olmo": Family(_ALL),
    "flint": Family(_ALL, {"mlp_only_layers": []}, shared=1),
    "gemma4": Family(_ALL, text={"enable_moe_block": True}),
    "gemma4_text": Family(_ALL, {"enable_moe_block": True}),
    "glm4_moe": Family(_LATER, shared=1),
    "glm4_moe_lite": Family(_LATER, shared=1),
    "glm4v_moe": Family(_LATER, text=_sections(2, 1, 1, partial_rotary_factor=0.5), shared=1),
    "glm5_next": Family(_LATER, text={"qk_rope_head_dim": 0, **_DENSE_FIRST, **_MIXED}, shared=1),
    "glm_moe_dsa": Family(_LATER, shared=1),
    "gpt_oss": Family(_ALL, transposed=True, gate="interleaved", biases=True),
    "granitemoe": Family(_ALL),
    "granitemoe_swa": Family(_ALL, shared=1),
    "granitemoehybrid": Family(_ALL, {"layer_types": ["mamba", "attention", "mamba"]}, shared=1),
    "granitemoeshared": Family(_ALL, shared=1),
    "hunyuan_v1_moe": Family(_ALL, shared=1),
    "hy_v3": Family(_LATER, shared=1),
    "hy_v4": Family(_LATER, shared=1),
    "inkling2": Family(_ALL),
    "inkling2_text": Family(_ALL),
    "inkling_mm_model": Family(_ALL, shared=1, router=False),
    "inkling_text": Family(_ALL, shared=1, router=False),
    "jamba": Family((1,), {"attn_layer_period": 2, "attn_layer_offset": 0}, since="5.23"),
    "kimi_k25": Family(_LATER, text={"model_type": "deepseek_v3"}, shared=1),
    "kimi_linear": Family(_LATER, _MIXED, shared=1),
    "kolibri1": Family(_ALL, shared=1),
    "laguna": Family(_LATER, shared=1),
    "lfm2_moe": Family(_LATER, {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1}),
    "mellum": Family(_ALL),
    "mimo_v2_flash": Family(_LATER, _FULL),
    "minimax": Family(_ALL),
    "minimax_m2": Family(_ALL),
    "minimax_m3_vl": Family(_ALL, shared=1, since="5.23"),
    "minimax_m3_vl_text": Family(_ALL, shared=1),
    "mistral4": Family(_LATER, shared=1),
    "mistral_large4": Family(_LATER, {"vision_config": {**_TINY, "head_dim": 8}}, shared=1),
    "mixtral": Family(_ALL),
    "muse_spark": Family(_ALL, _MUSE, text={"moe_hidden_size": 24}, normed=True),
    "nemotron_h": Family(
        (2,), {"layers_block_type": ["mamba", "attention", "moe"], "n_groups": 2}, gate="none", shared=1
    ),
    "olmoe": Family(_ALL),
    "phimoe": Family(_ALL, {"num_experts_per_tok": 2}, k=2),  # its sparse mixer takes two, whatever is set
    "qwen2_moe": Family(_ALL, shared=1),
    "qwen3_5_moe": Family(_ALL, text=_MIXED, shared=1),
    "qwen3_5_moe_text": Family(_ALL, _MIXED, shared=1),
    "qwen3_moe": Family(_LATER, {"mlp_only_layers": [0]}),
    "qwen3_next": Family(_ALL, _MIXED, shared=1),
    "qwen3_omni_moe_thinker": Family(_ALL, {"vision_start_token_id": 1}),
    "qwen3_vl_moe": Family(_ALL),
    "qwen4_exp": Family(_ALL, text=_QWEN4, shared=1),
    "qwen4_exp_text": Family(_ALL, _QWEN4, shared=1),
    "solar_open": Family(_ALL, shared=1),
    "unlimited_ocr": Family(_LATER, {"vision_config": _OCR}, shared=1),
}

PADDING_CHANGES_ANSWERS = {
    "deepseek_v4": "its compressed attention pools windows of columns, padding among them",
}
"""Families whose own answers, without any capture, depend on what they are padded with, and why."""


def skip_if_missing(model_type: str) -> None:
    """Skip a test where the transformers that is installed is too old for a family."""
    from transformers import CONFIG_MAPPING, __version__

    if model_type not in CONFIG_MAPPING or Version(__version__) < Version(FAMILIES[model_type].since):
        pytest.skip(f"transformers {__version__} has no {model_type} that can be served")


def known(settings: dict[str, Any], config_class: Any) -> dict[str, Any]:
    """Return the settings that a configuration class has."""
    names = {part.name for part in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    return {name: value for name, value in settings.items() if name in names}


def config_of(model_type: str, **changed: Any) -> Any:
    """Return the tiny configuration of a family, with some settings of its language model changed."""
    from transformers import CONFIG_MAPPING

    family, whole = FAMILIES[model_type], CONFIG_MAPPING[model_type]
    parts = whole.sub_configs
    if "text_config" not in parts:
        return whole(**{**known(_SHAPE, whole), **family.config, **changed})
    text = CONFIG_MAPPING[family.text["model_type"]] if "model_type" in family.text else parts["text_config"]
    settings: dict[str, Any] = {"text_config": {**known(_SHAPE, text), **family.text, **changed}}
    for name, part in parts.items():
        if name != "text_config" and dataclasses.is_dataclass(part):
            settings[name] = known({**_TOWER, **family.tower}, part)
    return whole(**{**settings, **family.config})


def build(model_type: str, seed: int = 1) -> Any:
    """Return a random model of a family, in float32."""
    import torch

    torch.manual_seed(seed)
    config = config_of(model_type)
    model = auto_class(config).from_config(config).float().eval().requires_grad_(False)
    parameters = dict(model.named_parameters())
    # The libraries' own start values are so small, biases even zero, that all tokens would be routed alike.
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and "norm" not in name and (name in parameters or "bias" in name):
            torch.nn.init.normal_(value, std=0.15 if name in parameters else 0.05)
        # Table of token to experts: k different ones a token.
        if name.endswith("tid2eid"):
            value.copy_(torch.rand(len(value), EXPERTS).argsort(dim=1)[:, :_K])
    model.generation_config.eos_token_id = 2
    return model


def load(model_type: str, tokenizer: Any) -> Any:
    """Return the same as the engine takes it."""
    import torch

    from harness.models.load import LoadedModel, ModelRef
    from harness.models.moe import find_moe

    ref = ModelRef(model_type, Path("nowhere"))
    return LoadedModel(ref, find_moe(build(model_type)), tokenizer, torch.device("cpu"), torch.float32)


def served_table() -> str:
    """Return the table of docs/reference/architectures.md."""
    head = (
        "model type",
        "gate and up",
        "matrices",
        "biases",
        "norm",
        "shared experts",
        "router logits",
        "transformers",
    )
    rows = [
        (
            f"`{name}`",
            family.gate,
            "[in, out]" if family.transposed else "[out, in]",
            "yes" if family.biases else "",
            "yes" if family.normed else "",
            "yes" if family.shared else "",
            "yes" if family.router else "no",
            f"{family.since} on" if family.since != "5.17" else "",
        )
        for name, family in FAMILIES.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def refused_table() -> str:
    """Return the table of what is refused."""
    rows = [(f"`{name}`", reason) for name, reason in refused().items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in (("model type", "because it"), ("---",) * 2, *rows))


def padding_list() -> str:
    """Return the list of what depends on padding."""
    return "\n".join(f"- `{name}`: {reason}" for name, reason in PADDING_CHANGES_ANSWERS.items())
