"""What a checkpoint wants of a run: thinking, memory, training, and the command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.config import PRESETS, RunConfig, make_config
from harness.doctor.at_hand import AT_HAND
from harness.models.auto import check_weights
from harness.models.chat import ChatTemplate
from harness.models.decoding import set_aside
from harness.models.facts import inspect
from harness.models.load import ModelRef, load_tokenizer, outline_model, pick_device, resolve_model
from harness.models.quantized import quantization_of, why_not_trained
from harness.models.weights import weight_files
from harness.pipeline.estimate import size
from harness.pipeline.memory import (
    BYTES_PER_TRAINED,
    activation_bytes,
    available_bytes,
    mapped_bytes,
    model_bytes,
    parameters_of,
    process_bytes,
    why_not_trainable,
)

if TYPE_CHECKING:
    from harness.models.moe import MoEModel
    from harness.models.thinking import Abilities

EXAMPLE_TOKENS = 128
"""Tokens of the training examples that memory is estimated for; a dry run reads the prompts instead."""

# The prompt sets of a first run of a model: those that find experts, and those that only test.
_FIND = {"harmful": ("advbench", "jbb_harmful"), "benign": ("alpaca", "jbb_benign")}
_FIRST = ("advbench", "alpaca", "jbb_harmful", "jbb_benign", "xstest_unsafe", "xstest_safe")
_SHIPPED = ("demo_harmful", "demo_benign", "demo_twins")


def examine(
    name: str,
    data: Sequence[dict[str, Any]],
    data_dirs: Sequence[Path] = (),
    trust_remote_code: bool = False,
    hub_answers: bool = True,
) -> dict[str, Any]:
    """Return what a model wants, by its configuration, the headers of its files and its tokenizer.

    `problems` are the reasons why no run of it can go here; `commands` the lines to type.

    Args:
        name: demo, smol-moe, a folder or a hub id, whose weights are not downloaded.
        data: where the data of tasks are (`at_hand.tasks`).
        data_dirs: folders with copies of public sets.
        trust_remote_code: let the checkpoint's own Python code run.
        hub_answers: data may come from the hub.

    Raises:
        BadInputError: there is no such model.
    """
    ref = resolve_model(name, trust_remote_code, with_weights=False)
    facts: dict[str, Any] = {"name": ref.name, "path": str(ref.path), "problems": [], "commands": []}
    try:
        moe = outline_model(ref, may_be_dense=True)
        can = ChatTemplate(load_tokenizer(ref)).abilities
        facts["weights"] = _weights(ref, moe)
    except BadInputError as error:
        return facts | {"problems": [str(error)]}
    config = make_config({"model": name}, None, [])
    facts["thinking"] = {"state": thinking(can), "detail": can.in_words()}
    facts["set_aside"] = set_aside(ref.path)
    facts |= {"is_moe": bool(moe.layers)} | (inspect(moe) if moe.layers else {"parameters": moe.n_parameters})
    facts["not_trained"] = why_not_trained(ref.path) if moe.layers else "it has no experts"
    quantization = quantization_of(ref.path)
    facts["is_dequantizable"] = quantization is not None and quantization.is_known
    facts["memory"] = memory(ref, moe, config)
    facts["problems"] = [reason for reason in (facts["memory"]["does_not_fit"],) if reason is not None]
    facts["commands"] = commands(name, facts, data, data_dirs, hub_answers)
    return facts


def thinking(can: Abilities) -> str:
    """Return whether a model thinks: none, optional or always."""
    if can.switch is not None:
        return "optional"
    return "always" if can.thinks else "none"


def _weights(ref: ModelRef, moe: MoEModel) -> dict[str, Any]:
    """Return the size of the weights' files, which are then checked; None where those of a hub id are not here."""
    files = _files(ref)
    if not files:
        return {"on_disk": False, "bytes": None}
    check_weights(moe.model, ref.path)
    return {"on_disk": True, "bytes": sum(file.stat().st_size for file in files)}


def _files(ref: ModelRef) -> list[Path]:
    """Return the weights' files; none of a hub id whose weights were not all downloaded.

    Raises:
        BadInputError: a folder holds none.
    """
    is_of_hub = "/" in ref.name
    if is_of_hub and not any(ref.path.glob("*.safetensors*")):
        return []
    files = [ref.path / file for file in weight_files(ref.path)]
    return [] if is_of_hub and not all(file.is_file() for file in files) else files


def memory(ref: ModelRef, moe: MoEModel, config: RunConfig) -> dict[str, Any]:
    """Return the memory that capture with evaluation and training take here, about, in bytes.

    Training is of the experts that the settings select at most, with a batch of examples of EXAMPLE_TOKENS tokens.
    """
    kind = str(pick_device(config.device))
    weights, available = model_bytes(moe, config.dtype), available_bytes(kind)
    base = process_bytes(kind) + mapped_bytes(_files(ref), kind) + weights
    does_not_fit = None
    if weights > available:
        does_not_fit = f"the weights take {size(weights)} in memory, the device has {size(available)}"
    facts = {
        "device": kind,
        "available_bytes": available,
        "evaluate_bytes": base,
        "train_bytes": None,
        "trained_experts": None,
        "train_does_not_fit": None,
        "does_not_fit": does_not_fit,
    }
    if not moe.layers:
        return facts
    experts = moe.all_experts()[: config.selection.at_most]
    trained = parameters_of(moe, experts, config.training.lora_rank)
    step = activation_bytes(moe, config.dtype, config.training.batch_size * EXAMPLE_TOKENS)
    step //= len(moe.layers) if config.training.gradient_checkpointing else 1
    return facts | {
        "train_bytes": base + trained * BYTES_PER_TRAINED + step,
        "trained_experts": len(experts),
        "train_does_not_fit": why_not_trainable(trained, weights, available),
    }


def commands(
    name: str,
    facts: dict[str, Any],
    data: Sequence[dict[str, Any]],
    data_dirs: Sequence[Path],
    hub_answers: bool,
) -> list[str]:
    """Return the command lines that run a model."""

    def line(*words: str) -> str:
        return shlex.join(["harness", *words])

    if (PRESETS / f"{name}.yaml").is_file():
        return [line("run", "--model", name, "--output", f"runs/{name}")]
    short = Path(facts["path"]).name if Path(name).is_dir() else name.rpartition("/")[2]
    common = ["--tasks", ",".join(_tasks(data, hub_answers))]
    if any(row["task"] == "piqa_local" and row["data"] in AT_HAND for row in data):
        common += ["--capability", "piqa"]
    common += [word for folder in data_dirs for word in ("--data-dir", str(folder))]
    state = facts["thinking"]["state"]
    common += {"none": [], "optional": ["--thinking", "off"], "always": ["--reasoning-tokens", "1024"]}[state]
    if not facts["is_moe"]:
        return [line("compare", name, "VARIANT", *common, "--output", f"runs/{short}")]
    if facts["not_trained"] is None:
        return [line("run", "--model", name, *common, "--output", f"runs/{short}")]
    if not facts["is_dequantizable"]:
        return [
            line("run", "--model", name, "--intervention", "steer", "--baselines", "system_prompt", *common)
        ]
    plain = f"{short}-bf16"
    run = line("run", "--model", plain, *common, "--output", f"runs/{short}")
    return [line("models", "dequantize", name, plain), run]


def _tasks(data: Sequence[dict[str, Any]], hub_answers: bool) -> Sequence[str]:
    """Return the tasks of a first run: those at hand if they can find experts, else those of the hub or the package."""
    at_hand = {row["task"] for row in data if row["data"] in AT_HAND}
    if all(at_hand & {*names} for names in _FIND.values()):
        return [task for task in _FIRST if task in at_hand]
    return _FIRST if hub_answers else _SHIPPED
