"""Whether a variant fits: memory that training takes, against what the machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.models.moe import Expert, MoELayer, MoEModel

# A trained parameter: float32 master, gradient and two AdamW moments, and a copy in the model's dtype.
BYTES_PER_TRAINED = 4 + 4 + 8 + 2
# What activations and libraries need besides, at the least.
_HEADROOM = 0.9


def parameters_of(outline: MoEModel, experts: Iterable[Expert], lora_rank: int | None = None) -> int:
    """Return how many parameters are trained of these experts: all their values, or the factors of their matrices."""
    sizes = {layer.index: _per_expert(layer, lora_rank) for layer in outline.layers}
    return sum(sizes[layer] for layer, _ in experts)


def _per_expert(layer: MoELayer, lora_rank: int | None) -> int:
    if lora_rank is None:
        return layer.parameters_per_expert
    shapes = [layer.weight(name).shape[1:] for name in layer.weights]
    return sum(lora_rank * sum(shape) for shape in shapes if len(shape) == 2)


def model_bytes(outline: MoEModel, dtype: str) -> int:
    """Return the size of the weights in memory, in a dtype ("auto" is the checkpoint's own)."""
    import torch

    size = None if dtype == "auto" else torch.empty(0, dtype=getattr(torch, dtype)).element_size()
    return sum(p.numel() * (size or p.element_size()) for p in outline.model.parameters())


def available_bytes(device: str) -> int:
    """Return the memory of the device, in bytes."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return int(psutil.virtual_memory().total)


def why_not_trainable(trained: int, weights: int, available: int) -> str | None:
    """Return why a training of so many parameters cannot fit, or None.

    Args:
        trained: parameters to train.
        weights: bytes of the model's weights.
        available: bytes of the device.
    """
    needed = weights + trained * BYTES_PER_TRAINED
    if needed <= _HEADROOM * available:
        return None
    return (
        f"training {trained / 1e9:.2f} billion parameters takes about {needed / 1e9:.0f} GB, "
        f"the device has {available / 1e9:.0f} GB"
    )
