"""The class of transformers that holds a configuration's language model, and the model without its weights."""

from __future__ import annotations

import copy
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.base.files import read_json_object
from harness.models.decoding import plain_forward
from harness.models.dequantized import decoded_here, plain_tensors
from harness.models.native import as_native, hint_of, native_type
from harness.models.quantized import check_dtype, decode_in_memory, quantization_of, without_quantization
from harness.models.unexpected import in_a_code, unexpected
from harness.models.unserved import why_refused
from harness.models.weights import Place, places

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

# One tensor per expert: the part before the expert's number, the number, the part after it.
_NUMBERED = re.compile(r"(.*\.experts\.)(\d+)(\..*)")


def read_config_file(folder: Path) -> dict[str, Any]:
    """Return config.json of a checkpoint whose kind can be served.

    Raises:
        BadInputError: no such file, no JSON object, a model type that is not known, or one that is refused.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise BadInputError(f"{folder} holds no config.json: expected a transformers checkpoint folder")
    config = read_json_object(path)
    for name, part in config.items():
        if name.endswith("_config") and not isinstance(part, Mapping | None):
            raise BadInputError(
                f"{path}: {name}: expected a mapping of keys to values, found a {type(part).__name__}"
            )
    check_kind(config)
    return config


def check_kind(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that cannot be served before anything is built.

    Raises:
        BadInputError: names the reason.
    """
    kind = native_type(config)
    # A checkpoint that brings its own code names its classes itself.
    if kind is None and not config.get("auto_map"):
        raise BadInputError(f"unknown model type '{config['model_type']}': {hint_of(config['model_type'])}")
    reason = why_refused(config)
    if reason:
        raise BadInputError(f"model type '{config['model_type']}' {reason}")


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
    """Turn an error of transformers about a configuration or its weights into one line."""
    import torch

    try:
        yield
    except (BadInputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # Configurations check themselves and raise many kinds; whichever, the user's checkpoint cannot be used.
        raise BadInputError(
            f"transformers cannot load '{folder.name}' as a language model: {reason_of(error)}"
        ) from error


def reason_of(error: BaseException) -> str:
    """Return in one line what transformers says: its validators put the field first and the reason behind it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def outline(folder: Path, trust_remote_code: bool = False) -> PreTrainedModel:
    """Build the model of a config.json on the meta device: no weights are read, no memory is taken.

    Raises:
        BadInputError: the configuration cannot be used; says why.
    """
    import torch

    with _one_line(folder), warnings.catch_warnings():
        # Of tensors without elements, which are reported with the weights.
        warnings.simplefilter("ignore")
        config = config_of(folder, trust_remote_code)
        longest = getattr(config.get_text_config(), "max_position_embeddings", None)
        if isinstance(longest, int) and longest < 1:
            raise BadInputError(
                f"{folder / 'config.json'}: max_position_embeddings: expected at least 1, found {longest}"
            )
        with torch.device("meta"):
            model: PreTrainedModel = auto_class(config).from_config(
                config, trust_remote_code=trust_remote_code
            )
    return model


def check_weights(model: PreTrainedModel, folder: Path) -> None:
    """Refuse weights that are not those of a model, from the headers of their files alone.

    transformers fills what a checkpoint lacks with random values. Here it loads tensors without values instead, so
    that its own rules apply to renamed, fused, tied and left-out tensors. Weights in MXFP4 or FP8 are checked as they
    are after decoding; of other quantized weights only the files are checked, and `load_whole` looks at the rest.

    Args:
        model: from `outline`.
        folder: of the checkpoint.

    Raises:
        BadInputError: a file that is missing or not whole, or the first tensor that is missing or has another shape.
    """
    import torch

    stored = places(folder)
    quantization = quantization_of(folder)
    shapes = {name: place.shape for name, place in stored.items()}
    config = copy.deepcopy(model.config)
    if quantization is None:
        _refuse(list(in_a_code(stored)), folder)
    else:
        if not quantization.is_known:
            return
        decoded = plain_tensors(stored, quantization, folder)
        shapes = {name: tensor.shape for name, tensor in decoded.items()}
        without_quantization(config)
    with _one_line(folder), _odd_expert_named(stored, folder):
        tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        loaded: Any = type(model)
        _, report = loaded.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, with those that are missing
        )
    refuse_parts(report, folder)
    _refuse(list(unexpected(report["unexpected_keys"], model)), folder)


def load_whole(
    kind: Any, folder: Path, weights: Mapping[str, torch.Tensor] | None = None, **how: Any
) -> PreTrainedModel:
    """Load a checkpoint by a class of transformers, from safetensors alone and only if it holds every tensor.

    Args:
        kind: with a `from_pretrained`.
        folder: of the checkpoint.
        weights: its tensors where they are not read from the files.
        how: more for `from_pretrained`.

    Raises:
        BadInputError: it cannot be loaded, or a tensor is missing or has another shape.
    """
    stored, is_plain = places(folder), not quantization_of(folder)
    if is_plain:
        _refuse(list(in_a_code(stored)), folder)
    with _one_line(folder), _odd_expert_named(stored, folder):
        model, report = kind.from_pretrained(
            folder if weights is None else None,
            state_dict=weights,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **how,
        )
    refuse_parts(report, folder)
    loaded: PreTrainedModel = model
    if is_plain:
        _refuse(list(unexpected(report["unexpected_keys"], loaded)), folder)
    # Of the class, and not of a checkpoint that brings its own: decoding is defined by the harness.
    loaded.__dict__.pop("generate", None)
    return loaded


def how_to_load(
    config: PreTrainedConfig, folder: Path, dtype: str, trust_remote_code: bool
) -> tuple[Any, dict[str, torch.Tensor] | None, str]:
    """Decide how a checkpoint is loaded so that quantised weights are decoded, and set its configuration for that.

    Returns:
        The class; the tensors, where transformers would not decode them rightly; and the dtype.

    Raises:
        BadInputError: the weights cannot be decoded, or not to this dtype.
    """
    check_dtype(folder, dtype)
    quantization = quantization_of(folder)
    if quantization is None:
        return auto_class(config), None, dtype
    if dtype == "auto" and (quantization.block or stored_dtype(folder) is None):
        # transformers decodes FP8 to nothing else, and codes say nothing of the dtype to compute in.
        dtype = "bfloat16"
    decoded = decoded_here(folder)
    if decoded is None:
        decode_in_memory(config)
        return auto_class(config), None, dtype
    without_quantization(config)
    tensors = {name: tensor.value() for name, tensor in decoded.items()}
    return type(outline(folder, trust_remote_code)), tensors, dtype


@contextmanager
def _odd_expert_named(stored: Mapping[str, Place], folder: Path) -> Iterator[None]:
    """Name the expert whose tensor is unlike the others when transformers fails to join them; it does not name it."""
    try:
        yield
    except RuntimeError as error:
        odd = _odd_expert(stored)
        if odd is None:
            raise
        raise BadInputError(f"the weights in {folder} are not those of its config.json: {odd}") from error


def _odd_expert(stored: Mapping[str, Place]) -> str | None:
    """Name the expert's tensor that is missing, or whose shape differs from its layer's other experts."""
    layers: dict[str, dict[str, dict[int, tuple[int, ...]]]] = {}
    for name, place in stored.items():
        match = _NUMBERED.fullmatch(name)
        if match:
            layers.setdefault(match[1], {}).setdefault(match[3], {})[int(match[2])] = place.shape
    for layer, kinds in sorted(layers.items()):
        numbers = set().union(*kinds.values())
        for kind, shapes in sorted(kinds.items()):
            for missing in sorted(numbers - shapes.keys()):
                return f"{layer}{missing}{kind} is missing"
            usual = Counter(shapes.values()).most_common(1)[0][0]
            for number, shape in sorted(shapes.items()):
                if shape != usual:
                    return f"{layer}{number}{kind} is {list(shape)}, those of other experts {list(usual)}"
    return None


def refuse_parts(report: Mapping[str, Any], name: Path | str) -> None:
    """Refuse weights if transformers reports that it filled some with random values.

    Raises:
        BadInputError: the first tensor that is missing or has another shape.
    """
    problems = [f"{name} is missing" for name in sorted(report["missing_keys"])]
    problems += [
        f"{name} is {list(stored)}, expected {list(expected)}"
        for name, stored, expected in sorted(report["mismatched_keys"])
    ]
    problems += list(report["error_msgs"])
    _refuse(problems, name)


def _refuse(problems: Sequence[str], name: Path | str) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise BadInputError(f"the weights in {name} are not those of its config.json: {problems[0]}{more}")


def load_weights(folder: Path, trust_remote_code: bool = False) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a checkpoint in its own dtype on the CPU, with transformers' report of names that did not fit.

    Raises:
        BadInputError: it cannot be loaded; says why.
    """
    config = config_of(folder, trust_remote_code)
    kind, weights, dtype = how_to_load(config, folder, "auto", trust_remote_code)
    with _one_line(folder):
        loaded: tuple[PreTrainedModel, dict[str, Any]] = kind.from_pretrained(
            folder if weights is None else None,
            config=config,
            state_dict=weights,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    return loaded


def stored_dtype(folder: Path) -> str | None:
    """Return the name of the dtype that a checkpoint's config.json gives its weights, if any.

    Raises:
        BadInputError: it is no floating point of torch.
    """
    import torch

    config = read_config_file(folder)
    text = config.get("text_config")
    nested = text.get("dtype") if isinstance(text, dict) else None
    stored = nested or config.get("dtype") or config.get("torch_dtype")
    if stored is None:
        return None
    name = str(stored).removeprefix("torch.")
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise BadInputError(f"{folder / 'config.json'}: dtype is {stored!r}, expected one such as bfloat16")
    return name


def needs_own_code(folder: Path) -> bool:
    """Say whether only a checkpoint's own code loads its model, since transformers has no class for it."""
    return native_type(read_config_file(folder)) is None


def config_of(folder: Path, trust_remote_code: bool) -> PreTrainedConfig:
    """Return the configuration of a checkpoint whose kind can be served, set for plain forward passes.

    The classes of transformers win over a checkpoint's own: its `auto_map` is left out where there are such.

    Raises:
        BadInputError: it cannot be used, or needs the checkpoint's own code, which may not run; says why.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    raw = read_config_file(folder)
    kind = native_type(raw)
    if kind is None and not trust_remote_code:
        raise BadInputError(
            f"model type '{raw['model_type']}' of '{folder.name}' has no class in transformers: the checkpoint brings "
            "its own code, which --trust-remote-code lets run"
        )
    with _one_line(folder):
        config: PreTrainedConfig
        if kind is None or as_native(raw) == {key: raw[key] for key in raw if key != "auto_map"}:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=kind is None)
        else:
            config = CONFIG_MAPPING[kind].from_dict(as_native(raw))
            config.name_or_path = str(folder)
        if kind is not None:
            # Else the auto classes would prefer it wherever code is trusted.
            vars(config).pop("auto_map", None)
        # Once more, with the values that config.json leaves to the class.
        check_kind(config.to_dict())
        return plain_forward(config)
