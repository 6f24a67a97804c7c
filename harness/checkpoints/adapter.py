"""PEFT adapters on disk: whether one belongs to a model, and putting it into a model in memory.

PEFT itself puts it in, so its answers are those that PEFT gives. Nothing is merged: base's weights are not touched, and
its own modules come back afterwards.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, first_line
from harness.base.extras import pip_line
from harness.base.files import read_json_object, sha256
from harness.base.fingerprint import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.models.load import ModelRef

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_NAME = "default"
# Beginnings of how an adapter may start that take its first values out of base's weights.
_CHANGES_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")


def adapter_fingerprint(folder: Path) -> str:
    """Return the identity of an adapter: a hash over its configuration and weights.

    Raises:
        BadInputError: a file is missing.
    """
    read_adapter(folder)
    return fingerprint([sha256(folder / name) for name in (CONFIG, TENSORS)])


def read_adapter(folder: Path) -> dict[str, Any]:
    """Return the configuration of an adapter that can be put in and taken out without a trace.

    Raises:
        BadInputError: a file is missing, or it is not LoRA with base's own weights left as they are.
    """
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise BadInputError(f"'{folder}' holds no {name}: expected the folder of a PEFT adapter")
    config = read_json_object(folder / CONFIG)
    for field, expected in (("peft_type", "LORA"), ("bias", "none")):
        if config.get(field) != expected:
            raise BadInputError(f"{folder / CONFIG}: {field}: expected {expected}, found {config.get(field)}")
    start = config.get("init_lora_weights")
    if str(start).lower().startswith(_CHANGES_BASE):
        raise BadInputError(
            f"{folder / CONFIG}: init_lora_weights: {start} changes base's own weights: expected an adapter that PEFT "
            "has converted to plain LoRA (path_initial_model_for_weight_conversion)"
        )
    return config


def check_adapter(folder: Path, ref: ModelRef, any_base: bool = False) -> None:
    """Refuse an adapter that is another model's; no weights of the model are read.

    Args:
        folder: of the adapter.
        ref: the base model.
        any_base: whatever base the adapter names, as where that is the same model under another name.

    Raises:
        BadInputError: it names another base, or has weights for parts that the model lacks or has in other shapes.
    """
    from harness.models.auto import outline

    named = read_adapter(folder).get("base_model_name_or_path")
    mismatch = f"the adapter in {folder} does not belong to '{ref.name}'"
    if named and not any_base and not _is_same(str(named), ref):
        raise BadInputError(
            f"{mismatch}: its base is {named}; where that is the same model, say any_base: true in a specification"
        )
    _put_in(outline(ref.path, ref.trust_remote_code), folder, "cpu", mismatch)


def _is_same(named: str, ref: ModelRef) -> bool:
    """Say whether a name is that of a model, or that of a folder with the same weights."""
    from harness.checkpoints.proof import weights_fingerprint

    last = Path(named).name.lower()
    if last in (Path(ref.name).name.lower(), ref.path.name.lower()):
        return True
    is_checkpoint = (Path(named) / "config.json").is_file()
    return is_checkpoint and weights_fingerprint(Path(named)) == weights_fingerprint(ref.path)


@contextmanager
def adapted(model: PreTrainedModel, folder: Path) -> Iterator[None]:
    """Put an adapter into a model inside the block, and take it out again, so that base's modules are what they were.

    Raises:
        BadInputError: it does not fit.
    """
    with own_modules_again(model):
        _put_in(model, folder, str(model.device), f"the adapter in {folder} does not fit the model")
        yield


@contextmanager
def own_modules_again(model: PreTrainedModel) -> Iterator[None]:
    """Put a model's own modules and weights back after the block, in which PEFT may put others in their place.

    PEFT's own way out leaves those that the adapter brought along as a whole (`modules_to_save`, embeddings).
    """
    before = [(name, module, dict(module._parameters)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for name, module, weights in before:
            if model.get_submodule(name) is not module:
                model.set_submodule(name, module)
            module._parameters.update(weights)
        for name in ("peft_config", "peft_type"):
            model.__dict__.pop(name, None)


def require_peft() -> None:
    """Refuse a machine without PEFT.

    Raises:
        BadInputError: with the remedy.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise BadInputError(
            f"an adapter needs PEFT, which cannot be imported ({first_line(error)}): {pip_line('peft')}"
        ) from error


def _put_in(model: PreTrainedModel, folder: Path, device: str, mismatch: str) -> None:
    """Let PEFT put an adapter into a model, in place.

    Raises:
        BadInputError: PEFT is not installed, or the adapter does not fit.
    """
    from safetensors import SafetensorError

    require_peft()
    from peft import PeftConfig, PeftModel

    try:
        with warnings.catch_warnings():
            # It asks transformers in a way that goes out of use, and repeats what is checked below.
            warnings.simplefilter("ignore")
            config = PeftConfig.from_pretrained(str(folder))
            config.inference_mode = True
            wrapped = PeftModel(model, config, _NAME, low_cpu_mem_usage=True)
            report = wrapped.load_adapter(
                str(folder), _NAME, is_trainable=False, torch_device=device, low_cpu_mem_usage=True
            )
    except (ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise BadInputError(f"{mismatch}: {_reason(error)}") from error
    lacking = [name for name in report.missing_keys if "lora_" in name or "modules_to_save" in name]
    for names, what in ((report.unexpected_keys, "the model has no place for"), (lacking, "it lacks")):
        if names:
            raise BadInputError(f"{mismatch}: {what} {names[0]} (and {len(names) - 1} more)")
    wrapped.eval()


def _reason(error: BaseException) -> str:
    """Return PEFT's reason, which lists every tensor below a line that says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[1] if lines[0].startswith("Error") and len(lines) > 1 else lines[0]
