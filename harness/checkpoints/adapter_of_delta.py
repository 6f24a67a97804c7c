"""A low-rank delta as a PEFT adapter: the same change of the same experts, for programs that load adapters."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.base.errors import BadInputError
from harness.base.files import write_whole
from harness.checkpoints.adapter import TENSORS, require_peft
from harness.checkpoints.apply import check_base, refuse_existing, whole_folder
from harness.checkpoints.delta_file import read_delta
from harness.models.load import outline_model
from harness.models.moe import Expert
from harness.models.stored import StoredExperts, UntraceableError

if TYPE_CHECKING:
    from harness.models.load import ModelRef
    from harness.models.moe import MoELayer

# What a delta's own dtype may round away of its largest value.
_ROUNDED = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def write_adapter(ref: ModelRef, delta: Path, out: Path, rank: int) -> list[Expert]:
    """Write a delta as an adapter of its base.

    Args:
        ref: the delta's base.
        delta: folder of the delta.
        out: folder to write, new or empty.
        rank: of the adapter, such as `training.lora_rank` of the training.

    Returns:
        The experts that it changes.

    Raises:
        BadInputError: the delta is another model's, changes an expert by more than such a rank or changes biases,
            or PEFT is not installed.
    """
    require_peft()
    refuse_existing(out)
    card, values = read_delta(delta)
    check_base(ref, card, values)
    moe = outline_model(ref)
    try:
        stored = StoredExperts(ref)
        factors = {
            (layer, name): _factors(stored, moe.layer(layer), name, numbers, tensor, rank)
            for layer, numbers in values.experts.items()
            for name, tensor in values.tensors[layer].items()
            if tensor.dim() == 3 or not _is_same(stored, layer, name, numbers, tensor)
        }
    except UntraceableError as error:
        raise BadInputError(
            f"the experts of '{ref.name}' cannot be followed in its files: {error}"
        ) from error
    named = {f"{moe.layer(layer).name}.{name}": pair for (layer, name), pair in factors.items()}
    with whole_folder(out) as partial:
        tensors = _as_peft(moe.model, named, rank, ref.name, partial)
        from safetensors.torch import save_file

        write_whole(
            partial / TENSORS, lambda temporary: save_file(tensors, temporary, metadata={"format": "pt"})
        )
    return values.selected()


def _is_same(stored: StoredExperts, layer: int, name: str, numbers: list[int], tensor: torch.Tensor) -> bool:
    """Say whether the biases of a delta are base's.

    Raises:
        BadInputError: they are not, which no factors can say.
    """
    for number, new in zip(numbers, tensor, strict=True):
        if not torch.equal(new, stored.value(Expert(layer, number), name).to(new.dtype)):
            raise BadInputError(
                f"layer {layer} expert {number}: the delta changes {name}, which is no matrix: no adapter can say it"
            )
    return True


def _factors(
    stored: StoredExperts, layer: MoELayer, name: str, numbers: list[int], tensor: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of one fused matrix as PEFT lays them out, [r * E, in] and [out, r * E]."""
    shape = layer.weight(name).shape
    n_out, n_in = shape[:0:-1] if layer.layout.transposed else shape[1:]
    right, left = torch.zeros(layer.n_experts, rank, n_in), torch.zeros(n_out, rank, layer.n_experts)
    for number, new in zip(numbers, tensor, strict=True):
        old = stored.value(Expert(layer.index, number), name)
        change = new.double() - old.double()
        change = change.T if layer.layout.transposed else change
        u, s, v = torch.linalg.svd(change, full_matrices=False)
        root = s[:rank].sqrt()
        b, a = (u[:, :rank] * root).float(), (root[:, None] * v[:rank]).float()
        missed = float((change - b.double() @ a.double()).abs().max())
        if missed > _ROUNDED.get(new.dtype, 0.0) * float(new.abs().max()):
            raise BadInputError(
                f"layer {layer.index} expert {number}, {name}: the delta's change is of a rank above {rank} (an "
                f"adapter would miss it by {missed:.2g})"
            )
        right[number, : len(root)], left[:, : len(root), number] = a, b
    return right.reshape(-1, n_in), left.reshape(n_out, -1)


def _as_peft(
    model: Any, named: dict[str, tuple[torch.Tensor, torch.Tensor]], rank: int, base: str, folder: Path
) -> dict[str, torch.Tensor]:
    """Write the adapter's configuration and return its tensors, by the names that PEFT itself gives them."""
    from peft import LoraConfig, PeftModel

    # With alpha of the rank, the factors count once.
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=[],
        target_parameters=sorted(named),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped: Any = PeftModel(model, config, low_cpu_mem_usage=True)
    config.save_pretrained(str(folder))
    tensors: dict[str, torch.Tensor] = {}
    for path, module in wrapped.base_model.model.named_modules():
        if (parameter := getattr(module, "parameter_name", None)) is not None:
            experts = path.replace(".base_layer", "")
            a, b = named[f"{experts}.{parameter}"]
            tensors |= {
                f"base_model.model.{path}.lora_A.weight": a.contiguous(),
                f"base_model.model.{path}.lora_B.weight": b.contiguous(),
            }
    return tensors
