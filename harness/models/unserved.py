"""Models that are refused by name, and why.

Families of transformers' fused experts need no list; these are the exceptions to the rule. A reason completes the
sentence "model type 'X' ...".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REFUSED: dict[str, str] = {
    "dbrx": "keeps all experts of a layer in one two-dimensional matrix, outside transformers' fused experts modules",
    "diffusion_gemma": "writes whole blocks by diffusion: there is no next token, and routing differs at each step",
    "doge": "retrieves its experts, single rows of an embedding, by product keys: there is no expert to fine-tune",
    "jetmoe": "calls its experts with tokens that are sorted already, and has experts in its attention too",
    "llama4": "runs every expert on every token, scaled by the router: its experts are not called with a choice",
    "longcat_flash": "routes to experts that compute nothing, and keeps its experts outside the fused modules",
    "nllb-moe": "is an encoder-decoder for translation, not a causal language model",
    "openai_privacy_filter": "labels tokens: it is not a causal language model",
    "qwen3_omni_moe": "is a talker beside a thinker, each with experts: only its thinker, saved alone, can be served",
    "step3p7": "calls its experts outside transformers' experts interface, so that no expert bank can be installed",
    "switch_transformers": "is an encoder-decoder, not a causal language model",
    "zaya": "lets a token skip its experts and then passes it to expert 0 with weight 0, so that counts would be wrong",
}
"""Model type to reason."""

_SAME = {"llama4_text": "llama4", "step3p7_text": "step3p7"}


def why_refused(config: Mapping[str, Any]) -> str | None:
    """Return why a model of this configuration (the contents of config.json) is refused by name, or None."""
    inner = config.get("text_config")
    types = [config.get("model_type"), inner.get("model_type") if isinstance(inner, Mapping) else None]
    for name in types:
        reason = REFUSED.get(_SAME.get(str(name), str(name)))
        if reason:
            return reason
    if config.get("is_encoder_decoder"):
        return "is an encoder-decoder, not a causal language model"
    return None
