"""How vLLM is started: whether it can serve a variant, with which arguments, and why it failed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, first_line
from harness.engines.vllm.worker import RoutingExtension
from harness.models.auto import needs_own_code, stored_dtype
from harness.models.tokenizer_files import runs_own_code

if TYPE_CHECKING:
    from harness.config import VllmConfig
    from harness.engines.in_memory import ModelInMemory
    from harness.interventions.base import Prepared
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel

# The generation settings of a checkpoint that vLLM can follow, by its own names.
FOLLOWED = {"min_new_tokens": "min_tokens", "repetition_penalty": "repetition_penalty"}

_LONGEST = 8192
_LONGEST_REASON = 200
_CPU_CACHE_GIB = 1.0


def arguments(model: ModelInMemory, checkpoint: Path, settings: VllmConfig, eager: bool) -> dict[str, Any]:
    """Return what vLLM's `LLM` is made with.

    Args:
        model: the base model.
        checkpoint: folder of the weights to serve.
        settings: the run's.
        eager: without CUDA graphs.
    """
    cache = settings.kv_cache_gib or (_CPU_CACHE_GIB if on_cpu() else None)
    chunk = settings.max_num_batched_tokens
    return {
        "model": str(checkpoint),
        "tokenizer": str(model.ref.tokenizer or model.ref.path),
        "dtype": _dtype(model),
        "enforce_eager": eager,
        "enable_prefix_caching": False,
        "enable_chunked_prefill": True,
        "max_model_len": longest_text(model.outline, settings),
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "enable_expert_parallel": settings.expert_parallel,
        "distributed_executor_backend": "uni" if settings.tensor_parallel_size == 1 else "mp",
        "worker_extension_cls": f"{RoutingExtension.__module__}.{RoutingExtension.__qualname__}",
        # Its own models alone: the fallback on transformers' code has no routers to listen to.
        "model_impl": "vllm",
        # Stop and decoding rules are given with each question, nothing comes from the checkpoint.
        "generation_config": "vllm",
        "load_format": "safetensors",
        "async_scheduling": False,
        "use_tqdm_on_load": False,
        "trust_remote_code": runs_code(model.ref),
        "seed": 0,
        **({"kv_cache_memory_bytes": int(cache * 2**30)} if cache else {}),
        **({"max_num_batched_tokens": chunk} if chunk else {}),
    }


def runs_code(ref: ModelRef) -> bool:
    """Say whether vLLM may run the checkpoint's own code; it has one switch for the model's and the tokenizer's."""
    return ref.trust_remote_code and (needs_own_code(ref.path) or runs_own_code(ref))


def check_trust(ref: ModelRef) -> None:
    """Refuse a tokenizer whose code may run alone.

    Raises:
        BadInputError: it may.
    """
    if not ref.trust_remote_code and runs_own_code(ref):
        raise BadInputError(
            "engine vllm runs the code of model and tokenizer or none: add --trust-remote-code, or use --engine "
            "transformers"
        )


def _dtype(model: ModelInMemory) -> str:
    """Return the dtype by name: vLLM's own "auto" would turn a float32 checkpoint into bfloat16."""
    if model.dtype != "auto":
        return model.dtype
    return stored_dtype(model.ref.path) or "auto"


def reason_of(error: Exception) -> str:
    """Return in one line why vLLM failed; it lists hundreds of names in some messages."""
    from pydantic import ValidationError

    from harness.base.schema import explain

    line = first_line(ValueError(explain(error)) if isinstance(error, ValidationError) else error)
    # These say a name alone.
    if isinstance(error, (LookupError, AttributeError)) and str(error).strip():
        line = f"{type(error).__name__} {line}"
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + " ..."


def why_not_servable(made: Prepared) -> str | None:
    """Return why vLLM cannot answer as a variant, or None: it loads weights by itself, from a checkpoint."""
    if made.intervention.served(made) is not None:
        return None
    return "vLLM serves checkpoints, deltas and silenced experts, no other change to a model: use --engine transformers"


def longest_text(outline: MoEModel, settings: VllmConfig) -> int:
    """Return the longest prompt with its answer, in tokens, that vLLM is started for."""
    own = getattr(outline.model.config.get_text_config(), "max_position_embeddings", None)
    return settings.max_model_len or min(own or _LONGEST, _LONGEST)


def on_cpu() -> bool:
    """Say whether the installed vLLM computes on the CPU."""
    return bool(importlib.import_module("vllm.platforms").current_platform.is_cpu())
