"""From a model's name to a loaded model: the embedded demo, a built one, a local folder or a hub id."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.cache import default_cache
from harness.base.errors import BadInputError, HarnessError, first_line
from harness.base.files import at_home
from harness.models.auto import (
    config_of,
    how_to_load,
    load_whole,
    outline,
    reason_of,
    stored_dtype,
)
from harness.models.decoding import end_tokens, greedy, has_embedding
from harness.models.hub import from_hub
from harness.models.moe import MoEModel, find_moe
from harness.models.quantized import quantization_of
from harness.models.tokenizer_files import check_json, runs_own_code
from harness.models.weights import dtype_of_experts, holds, places

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

DEMO_FOLDER = Path(__file__).resolve().parent / "demo"


@dataclass(frozen=True)
class ModelRef:
    """A model that is on disk, and whether its own Python code may run.

    Attributes:
        name: what the user called it.
        path: of its folder.
        trust_remote_code: its code may run where transformers has no class for the model or the tokenizer.
        trust_remote_tokenizer: the tokenizer's code alone may.
        tokenizer: the folder of its tokenizer; None where that is its own.
    """

    name: str
    path: Path
    trust_remote_code: bool = False
    trust_remote_tokenizer: bool = False
    tokenizer: Path | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory with its tokenizer and MoE layers.

    Attributes:
        ref: where it is from.
        moe: the model.
        tokenizer: its own.
        device: where it is.
        checkpoint_dtype: that its experts are stored in, by the headers of the files: the dtype of deltas.
    """

    ref: ModelRef
    moe: MoEModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    checkpoint_dtype: torch.dtype

    @property
    def ends(self) -> list[int]:
        """The tokens that end an answer."""
        eos = self.moe.model.generation_config.eos_token_id
        if eos is None:
            eos = self.tokenizer.eos_token_id
        return list(eos) if isinstance(eos, list) else [int(eos)]


def resolve_model(
    name: str,
    trust_remote_code: bool = False,
    trust_remote_tokenizer: bool = False,
    with_weights: bool = True,
) -> ModelRef:
    """Find a model on disk, downloading it if it is a hub id.

    Args:
        name: demo, smol-moe, a checkpoint folder or a hub id.
        trust_remote_code: let the checkpoint's own Python code run where transformers has no class of its own.
        trust_remote_tokenizer: let that of the tokenizer alone run.
        with_weights: False where they are not read: those of a hub id are then not downloaded.

    Raises:
        BadInputError: there is no such model, or it was not built yet.
    """
    trusts = (trust_remote_code, trust_remote_tokenizer)
    if name == "demo":
        return ModelRef(name, DEMO_FOLDER, *trusts)
    if name == "smol-moe":
        path = default_cache() / "smol-moe"
        if not (path / "config.json").is_file():
            raise BadInputError(
                f"model 'smol-moe' is not in {path}: run `harness models build smol-moe` first"
            )
        return ModelRef(name, path, *trusts)
    path = at_home(Path(name))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BadInputError(f"{path} holds no config.json: expected a transformers checkpoint folder")
        return ModelRef(path.resolve().name, path, *trusts)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise BadInputError(f"no model at '{name}': expected demo, smol-moe, a checkpoint folder or a hub id")
    return ModelRef(name, from_hub(name, any(trusts), with_weights), *trusts)


def load_tokenizer(ref: ModelRef) -> PreTrainedTokenizerBase:
    """Load the tokenizer, with left padding and a padding token.

    Raises:
        BadInputError: there is no tokenizer, it needs its own code, which may not run, or it has no chat template.
    """
    from transformers import AutoTokenizer

    if ref.tokenizer is not None:
        return load_tokenizer(replace(ref, path=ref.tokenizer, tokenizer=None))
    config, runs_code = config_of(ref.path, ref.trust_remote_code), runs_own_code(ref)
    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.path, config=config, trust_remote_code=runs_code)
        # Where the files are missing, transformers makes up an empty tokenizer from the model's type.
        is_empty = not tokenizer("a")["input_ids"]
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        # Whatever the files or the checkpoint's own code raise, the tokenizer cannot be used.
        check_json(ref.path)
        raise BadInputError(
            f"{ref.path} holds no tokenizer that transformers can load: {reason_of(error)}"
        ) from error
    if is_empty:
        raise BadInputError(f"{ref.path} holds no tokenizer: expected tokenizer.json or its like")
    if not tokenizer.chat_template:
        raise BadInputError(
            f"the tokenizer of '{ref.name}' has no chat template: expected an instruction-tuned model"
        )
    tokenizer.padding_side = "left"
    # Padding is masked, whatever inputs the tokenizer names.
    tokenizer.model_input_names = list(dict.fromkeys([*tokenizer.model_input_names, "attention_mask"]))
    if not _is_known(tokenizer.pad_token_id, config):
        # What stands there is masked; a token that was added without a row in the embedding would end the run.
        tokenizer.pad_token = tokenizer.eos_token
    if not _is_known(tokenizer.pad_token_id, config):
        raise BadInputError(
            f"the tokenizer of '{ref.name}' has neither a padding token nor an end token: expected pad_token or "
            "eos_token in tokenizer_config.json, which the model knows"
        )
    return tokenizer


def _is_known(token: int | None, config: Any) -> bool:
    return token is not None and has_embedding(config, token)


def pick_device(device: str) -> torch.device:
    """Return the device: 'auto' is a GPU if there is one."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BadInputError(f"device '{device}' asked for, but torch sees no GPU: use --device cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise BadInputError(f"device '{device}': expected auto, cpu, cuda or cuda:N") from error


def load_model(
    ref: ModelRef, dtype: str = "auto", device: str = "auto", may_be_dense: bool = False
) -> LoadedModel:
    """Load a model for evaluation.

    Args:
        ref: from `resolve_model`.
        dtype: "auto" for the checkpoint's own, or float32, bfloat16, float16.
        device: "auto", "cpu", "cuda", "cuda:1".
        may_be_dense: a model without experts will do.

    Raises:
        BadInputError: a dense model, no chat template, or not a causal language model.
        HarnessError: it does not fit into memory.
    """
    import torch

    # Before the weights: cheap, and the likelier mistake.
    tokenizer = load_tokenizer(ref)
    config = config_of(ref.path, ref.trust_remote_code)
    ends = end_tokens(ref.path, config, tokenizer)
    target = pick_device(device)
    kind, weights, dtype = how_to_load(config, ref.path, dtype, ref.trust_remote_code)
    try:
        model: Any = load_whole(
            kind,
            ref.path,
            weights,
            config=config,
            generation_config=greedy(ends, tokenizer.pad_token_id),
            dtype="auto" if dtype == "auto" else getattr(torch, dtype),
            trust_remote_code=ref.trust_remote_code,
        )
        model.to(target)
    except torch.OutOfMemoryError as error:
        raise HarnessError(f"model '{ref.name}' does not fit on {target}: {first_line(error)}") from error
    model.eval().requires_grad_(False)
    stored = None if quantization_of(ref.path) else dtype_of_experts(places(ref.path))
    checkpoint_dtype = stored or next(model.parameters()).dtype
    return LoadedModel(ref, find_moe(model, may_be_dense), tokenizer, target, checkpoint_dtype)


def check_holds_experts(ref: ModelRef, dtype: str) -> None:
    """Refuse a run whose dtype does not have every value that trained experts are stored with.

    What it evaluates in memory would not be what is written. config.json may say another dtype than its files have.

    Args:
        ref: the model, not quantized.
        dtype: "auto" for that of config.json, or a name.

    Raises:
        BadInputError: says both.
    """
    import torch

    stored = dtype_of_experts(places(ref.path))
    if stored is None:
        raise BadInputError(
            f"{ref.path} stores experts in dtypes of which none has the values of another: save it anew in one dtype"
        )
    name = str(stored).removeprefix("torch.")
    own = stored_dtype(ref.path) or name
    memory = own if dtype == "auto" else dtype
    if not holds(getattr(torch, memory), stored):
        whose = "config.json says" if dtype == "auto" else "the run's dtype is"
        advice = "save it anew as float32" if name == "float64" else f"use --dtype {name}"
        raise BadInputError(
            f"{ref.path} stores its experts as {name}, {whose} {memory}, which cannot hold the trained ones: {advice}"
        )


def outline_model(ref: ModelRef, may_be_dense: bool = False) -> MoEModel:
    """Build a model without weights (on the meta device), to see its MoE layers and sizes.

    Args:
        ref: from `resolve_model`.
        may_be_dense: a model without experts will do.

    Raises:
        BadInputError: a dense model, or one that transformers does not know.
    """
    return find_moe(outline(ref.path, ref.trust_remote_code), may_be_dense)


def quiet_transformers() -> None:
    """Keep the libraries' own bars and notes out of ours."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
