"""Which classes of transformers are a checkpoint's own: by its model type, or by the architecture that it names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from harness.base.errors import BadInputError

# Model types of published checkpoints that are another one's by every tensor and setting.
_SAME = {"kimi_k2": "deepseek_v3"}
_DIGITS = re.compile(r"\d+")
# How alike two names must be: a letter or two of ten.
_SLIP = 0.85


def native_type(config: Mapping[str, Any]) -> str | None:
    """Return the model type whose classes in transformers load a configuration, or None where only other code does.

    A checkpoint's `auto_map` alone says nothing: many still name code that transformers has had for long.

    Args:
        config: the contents of config.json, or a part of it.

    Raises:
        BadInputError: it has no model type.
    """
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        found = "" if kind in (None, "") else f", found {kind!r}"
        raise BadInputError(f"config.json has no model_type{found}: expected a transformers checkpoint")
    own = _own_class(config)
    if kind in CONFIG_MAPPING:
        has_class = (
            kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        )
        return kind if has_class or own is None else None
    if kind in _SAME:
        return _SAME[kind]
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    # Code under the name of a class of transformers is a copy of it; under any other name it is its own.
    if own is None or own != named:
        return None
    return next((kind for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if name == named), None)


def _own_class(config: Mapping[str, Any]) -> str | None:
    """Return the name of the language model's class in a checkpoint's own code, if it brings any."""
    classes = config.get("auto_map")
    if not isinstance(classes, Mapping):
        return None
    named = classes.get("AutoModelForCausalLM") or next(iter(classes.values()), None)
    return named.rpartition(".")[2] if isinstance(named, str) else None


def as_native(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration under the model types that transformers has, without the checkpoint's own code.

    Its parts are renamed too: conversions of weights are looked up by model type.
    """
    renamed = {name: value for name, value in config.items() if name != "auto_map"}
    if isinstance(config.get("model_type"), str):
        renamed["model_type"] = native_type(config) or config["model_type"]
    for name, part in config.items():
        if name.endswith("_config") and isinstance(part, Mapping) and "model_type" in part:
            renamed[name] = as_native(part)
    return renamed


def hint_of(kind: str) -> str:
    """Return a clause about a model type that transformers lacks: the one that was meant, if that is a slip of the pen.

    Another version or size of a family is another model, and so no advice.
    """
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    alike = [
        name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if _DIGITS.findall(name) == _DIGITS.findall(kind)
    ]
    close = difflib.get_close_matches(kind, alike, n=1, cutoff=_SLIP)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"transformers {transformers.__version__} has no such model"
