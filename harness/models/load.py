"""From a model's name to a loaded model: the embedded demo, a built one, a local folder or a hub id."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.cache import default_cache
from harness.base.errors import BadInputError, HarnessError, first_line
from harness.models.auto import config_of, how_to_load, load_whole, outline, stored_dtype
from harness.models.decoding import end_tokens, greedy
from harness.models.moe import MoEModel, find_moe

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

DEMO_FOLDER = Path(__file__).resolve().parent / "demo"


@dataclass(frozen=True)
class ModelRef:
    """A model that is on disk, and whether its own Python code may run."""

    name: str
    path: Path
    trust_remote_code: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory with its tokenizer and MoE layers."""

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


def resolve_model(name: str, trust_remote_code: bool = False) -> ModelRef:
    """Find a model on disk, downloading it if it is a hub id.

    Args:
        name: demo, smol-moe, a checkpoint folder or a hub id.
        trust_remote_code: let the checkpoint's own Python code run.

    Raises:
        BadInputError: there is no such model, or it was not built yet.
    """
    if name == "demo":
        return ModelRef(name, DEMO_FOLDER, trust_remote_code)
    if name == "smol-moe":
        path = default_cache() / "smol-moe"
        if not (path / "config.json").is_file():
            raise BadInputError(
                f"model 'smol-moe' is not in {path}: run `harness models build smol-moe` first"
            )
        return ModelRef(name, path, trust_remote_code)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BadInputError(f"{path} holds no config.json: expected a transformers checkpoint folder")
        return ModelRef(path.resolve().name, path, trust_remote_code)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise BadInputError(f"no model at '{name}': expected demo, smol-moe, a checkpoint folder or a hub id")
    return ModelRef(name, _from_hub(name), trust_remote_code)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        # The hub client raises many kinds: whichever it was, the user named a model that cannot be had.
        raise BadInputError(
            f"model '{name}' is no local folder and the hub did not give it: {first_line(error)}"
        ) from error


def load_tokenizer(ref: ModelRef) -> PreTrainedTokenizerBase:
    """Load the tokenizer, with left padding and a padding token.

    Raises:
        BadInputError: there is no tokenizer, or it has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.path, trust_remote_code=ref.trust_remote_code)
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"{ref.path} holds no tokenizer that transformers can load: {first_line(error)}"
        ) from error
    # Where the files are missing, transformers makes up an empty tokenizer from the model's type.
    if not tokenizer("a")["input_ids"]:
        raise BadInputError(f"{ref.path} holds no tokenizer: expected tokenizer.json or its like")
    if not tokenizer.chat_template:
        raise BadInputError(
            f"the tokenizer of '{ref.name}' has no chat template: expected an instruction-tuned model"
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise BadInputError(
            f"the tokenizer of '{ref.name}' has neither a padding token nor an end token: expected pad_token or "
            "eos_token in tokenizer_config.json"
        )
    return tokenizer


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


def load_model(ref: ModelRef, dtype: str = "auto", device: str = "auto") -> LoadedModel:
    """Load a model for evaluation.

    Args:
        ref: from `resolve_model`.
        dtype: "auto" for the checkpoint's own, or float32, bfloat16, float16.
        device: "auto", "cpu", "cuda", "cuda:1".

    Raises:
        BadInputError: a dense model, no chat template, or not a causal language model.
        HarnessError: it does not fit into memory.
    """
    import torch

    # Before the weights: cheap, and the likelier mistake.
    tokenizer = load_tokenizer(ref)
    stored = stored_dtype(ref.path)
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
    checkpoint_dtype = getattr(torch, stored) if stored else next(model.parameters()).dtype
    return LoadedModel(ref, find_moe(model), tokenizer, target, checkpoint_dtype)


def outline_model(ref: ModelRef) -> MoEModel:
    """Build a model without weights (on the meta device), to see its MoE layers and sizes.

    Raises:
        BadInputError: a dense model, or one that transformers does not know.
    """
    return find_moe(outline(ref.path, ref.trust_remote_code))


def quiet_transformers() -> None:
    """Keep the libraries' own bars and notes out of ours."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
