"""What the vLLM tests share: tiny checkpoints that vLLM can serve, and both engines on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.base.files import read_json, write_json
from harness.config import VllmConfig
from harness.engines.vllm.install import why_vllm_is_unusable

if TYPE_CHECKING:
    from harness.engines.vllm.engine import VllmEngine
    from harness.models.load import LoadedModel, ModelRef


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder, and skip it with the reason where vLLM cannot be used."""
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    reason = why_vllm_is_unusable(gpu=False)
    for item in ours:
        item.add_marker(pytest.mark.vllm)
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"{reason}; tox run -e vllm runs these tests"))


# vLLM's attention on a CPU takes heads of 32 or more.
_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}
# Widths, and what a family's published configurations say but transformers' own classes do not.
_EXPERTS = {"moe_intermediate_size": 32}
_OWN: dict[str, dict[str, Any]] = {
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 32},
    "qwen3_moe": {**_EXPERTS, "head_dim": 32},
    "mixtral": {"head_dim": 32},
    "gpt_oss": {"head_dim": 32},
    "glm4_moe": {**_EXPERTS, "head_dim": 32},
    # The only widths that vLLM's latent attention has.
    "deepseek_v3": {
        **_EXPERTS,
        **{"topk_method": "noaux_tc", "kv_lora_rank": 512, "qk_rope_head_dim": 64},
        **{"qk_nope_head_dim": 128, "v_head_dim": 128},
    },
}
# As the published checkpoints call them.
_ARCHITECTURES = {"phimoe": "PhiMoEForCausalLM"}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, demo: LoadedModel) -> Callable[..., ModelRef]:
    """Write a random model of a family, in float32 and with the demo's tokenizer."""
    import torch
    from moe_families import config_of

    from harness.models.auto import auto_class
    from harness.models.load import ModelRef

    def build(model_type: str, **changed: Any) -> ModelRef:
        torch.manual_seed(1)
        config = config_of(model_type, **{**_SHAPE, **_OWN.get(model_type, {}), **changed})
        model = auto_class(config).from_config(config).float().eval().requires_grad_(False)
        # Larger than the library's own start values, so that tokens are not all routed alike.
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point() and "norm" not in name and "inv_freq" not in name:
                torch.nn.init.normal_(value, std=0.15 if "bias" not in name else 0.05)
        model.generation_config.eos_token_id = 2
        folder = tmp_path_factory.mktemp(model_type)
        model.save_pretrained(folder)
        if model_type in _ARCHITECTURES:
            written = read_json(folder / "config.json")
            write_json(folder / "config.json", written | {"architectures": [_ARCHITECTURES[model_type]]})
        demo.tokenizer.save_pretrained(folder)
        return ModelRef(model_type, folder)

    return build


@pytest.fixture
def vllm_engine() -> Iterator[Callable[..., VllmEngine]]:
    """Make a vLLM engine for a checkpoint; stopped behind the test."""
    from harness.engines.in_memory import ModelInMemory
    from harness.engines.vllm.engine import VllmEngine
    from harness.models.chat import ChatTemplate
    from harness.models.load import load_tokenizer, outline_model

    engines: list[VllmEngine] = []

    def make(
        ref: ModelRef, batch_size: int = 2, followed: dict[str, Any] | None = None, **settings: Any
    ) -> VllmEngine:
        config = VllmConfig(**{"kv_cache_gib": 0.05, "max_model_len": 256, **settings})
        model = ModelInMemory(ref, outline_model(ref), "auto", "cpu")
        chat = ChatTemplate(load_tokenizer(ref))
        engine = VllmEngine(model, chat, batch_size, config, followed=followed)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()
