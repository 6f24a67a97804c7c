"""Models that are refused by name, and why: the table is in unserved.yaml."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.base.files import read_mapping

_SAME = {"llama4_text": "llama4", "step3p7_text": "step3p7"}


@functools.cache
def refused() -> Mapping[str, str]:
    """Return the reason for each refused model type."""
    return read_mapping(Path(__file__).with_suffix(".yaml"))


def why_refused(config: Mapping[str, Any]) -> str | None:
    """Return why a model of this configuration (the contents of config.json) is refused by name, or None."""
    inner = config.get("text_config")
    types = [config.get("model_type"), inner.get("model_type") if isinstance(inner, Mapping) else None]
    for name in types:
        reason = refused().get(_SAME.get(str(name), str(name)))
        if reason:
            return reason
    if config.get("is_encoder_decoder"):
        return "is an encoder-decoder, not a causal language model"
    return None
