"""Which of transformers' classes holds a configuration's language model, and its outline without weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, nearest
from harness.models.unserved import why_refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedConfig, PreTrainedModel


def read_config_file(folder: Path) -> dict[str, Any]:
    """Return config.json of a checkpoint whose kind can be served.

    Raises:
        BadInputError: no such file, no JSON object, a model type that is not known, or one that is refused.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(
            f"{folder} holds no config.json: expected a transformers checkpoint folder"
        ) from error
    except ValueError as error:
        raise BadInputError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise BadInputError(f"{path} is not a JSON object: expected a model's configuration")
    check_kind(config)
    return config


def check_kind(config: Mapping[str, Any]) -> None:
    """Refuse what can be refused before anything is built.

    Raises:
        BadInputError: names the reason.
    """
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if not kind:
        raise BadInputError("config.json has no model_type: expected a transformers checkpoint")
    # A checkpoint that brings its own code names its classes itself.
    if kind not in CONFIG_MAPPING and "auto_map" not in config:
        hint = nearest(str(kind), CONFIG_MAPPING)
        if hint.startswith("known:"):
            import transformers

            hint = f"transformers {transformers.__version__} has no such model"
        raise BadInputError(f"unknown model type '{kind}': {hint}")
    reason = why_refused(config)
    if reason:
        raise BadInputError(f"model type '{kind}' {reason}")


def auto_class(config: PreTrainedConfig) -> Any:
    """Return the auto class that loads a configuration's language model.

    The causal one where there is one. Some families that see have only a class for images and text; it answers
    text alone as well, and its experts are those of its language model.

    Raises:
        BadInputError: there is neither.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    # With code of its own, a checkpoint maps the auto classes itself.
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or getattr(config, "auto_map", None):
        return AutoModelForCausalLM
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    raise BadInputError(f"model type '{config.model_type}' is not a causal language model")


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    """Turn what transformers raises about a configuration or its weights into one line."""
    try:
        yield
    except (BadInputError, MemoryError):
        raise
    except Exception as error:
        # Configurations check themselves and raise many kinds; whichever, the user's checkpoint cannot be used.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        # Their validators put the field first and the reason behind it.
        reason = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        raise BadInputError(
            f"transformers cannot load '{folder.name}' as a language model: {reason}"
        ) from error


def outline(folder: Path, trust_remote_code: bool = False) -> PreTrainedModel:
    """Build the model of a config.json on the meta device: no weights are read, no memory is taken.

    Raises:
        BadInputError: the configuration cannot be used; says why.
    """
    import torch

    with _one_line(folder):
        config = _config(folder, trust_remote_code)
        with torch.device("meta"):
            model: PreTrainedModel = auto_class(config).from_config(
                config, trust_remote_code=trust_remote_code
            )
    return model


def outline_of_weights(folder: Path, trust_remote_code: bool = False) -> PreTrainedModel:
    """Build the same from a checkpoint, checking that its files hold every tensor in the model's shape.

    Loading onto the meta device reads the tensors' names and shapes and converts them as usual, without values.

    Raises:
        BadInputError: the first tensor that is missing or has another shape.
    """
    with _one_line(folder):
        config = _config(folder, trust_remote_code)
        if not any(folder.glob("*.safetensors")):
            raise BadInputError(f"{folder} holds no safetensors weights: --meta looks at config.json alone")
        model, found = auto_class(config).from_pretrained(
            folder,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, all at once
            trust_remote_code=trust_remote_code,
        )
    problems = [f"{name} is missing" for name in sorted(found["missing_keys"])]
    problems += [
        f"{name} is {list(stored)}, expected {list(expected)}"
        for name, stored, expected in sorted(found["mismatched_keys"])
    ]
    problems += list(found["error_msgs"])
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise BadInputError(f"the weights in {folder} are not those of its config.json: {problems[0]}{more}")
    outlined: PreTrainedModel = model
    return outlined


def load_weights(folder: Path, trust_remote_code: bool = False) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a checkpoint in its own dtype on the CPU, with transformers' report of names that did not fit.

    Raises:
        BadInputError: it cannot be loaded; says why.
    """
    with _one_line(folder):
        config = _config(folder, trust_remote_code)
        loaded: tuple[PreTrainedModel, dict[str, Any]] = auto_class(config).from_pretrained(
            folder, dtype="auto", output_loading_info=True, trust_remote_code=trust_remote_code
        )
    return loaded


def refuse_quantized(folder: Path) -> None:
    """Refuse a checkpoint whose weights are stored in a code instead of plain numbers.

    Raises:
        BadInputError: names the method.
    """
    config = read_config_file(folder)
    for part in (config, config.get("text_config") or {}):
        found = part.get("quantization_config")
        if found:
            method = found.get("quant_method", "an unnamed method") if isinstance(found, dict) else found
            raise BadInputError(
                f"{folder} is quantized ({method}): expected a dequantized copy, whose experts can be replaced"
            )


def _config(folder: Path, trust_remote_code: bool) -> PreTrainedConfig:
    from transformers import AutoConfig

    read_config_file(folder)
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    # Once more, with the values that config.json leaves to the class.
    check_kind(config.to_dict())
    return config
