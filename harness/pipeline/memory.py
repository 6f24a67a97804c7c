"""Whether a variant fits: memory that training takes, against what the machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.engines.unanswered import ForwardPass
    from harness.models.moe import Expert, MoELayer, MoEModel

# A trained parameter: float32 master, gradient and two AdamW moments; its copy in the model's dtype with a gradient.
BYTES_PER_TRAINED = 4 + 4 + 8 + 2 + 2
# A process with torch, transformers and their friends on a CPU, before any weight.
_LIBRARIES = 0.8e9
# Of a number that the backward pass needs, in float32 and in half precision, where parts are kept in float32 beside it.
_BYTES_KEPT = {4: 4.4, 2: 6.4}
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


def activation_bytes(outline: MoEModel, dtype: str, tokens: int) -> int:
    """Return about what a training step keeps for its backward pass; the output head's part is small (in chunks).

    Counted are the hidden states around norms, attention and experts of every layer. The bytes of each number were
    fitted on four trainings of a model of 158 million parameters on a CPU (docs/results/scale-local.md).

    Args:
        outline: the model.
        dtype: of the weights in memory ("auto" is the checkpoint's own).
        tokens: of a batch, padding included.
    """
    config = outline.model.config.get_text_config()
    layer = outline.layers[0]
    hidden = config.hidden_size
    inner = layer.parameters_per_expert // (3 * hidden)
    numbers = outline.experts_per_token * (3 * hidden + 4 * inner) + 12 * hidden
    kept = _BYTES_KEPT[4 if _bytes_per_weight(outline, dtype) >= 4 else 2]
    return int(tokens * config.num_hidden_layers * numbers * kept)


def _bytes_per_weight(outline: MoEModel, dtype: str) -> int:
    return model_bytes(outline, dtype) // outline.n_parameters


def capability_bytes(
    outline: MoEModel, dtype: str, device: str, passes: Iterable[ForwardPass], trained: int = 0
) -> int:
    """Return what lm-eval holds at once: the logits of a batch's tokens over the vocabulary, and what is made of them.

    Beside the model's own logits there are their log-softmax in float32, on a CPU the logits in float32 that it is
    made from, and the log-softmax of the batch before. The forward pass needs one layer's activations.

    Args:
        outline: the model.
        dtype: of the weights in memory.
        device: where it is.
        passes: the largest forward pass of each task.
        trained: values of the variant that are put into the model; what was there before is kept beside them.
    """
    size = _bytes_per_weight(outline, dtype)
    converted = 4 if size < 4 and not device.startswith("cuda") else 0
    config = outline.model.config.get_text_config()

    def of(each: ForwardPass) -> int:
        tokens = each.rows * each.tokens
        logits: int = tokens * config.vocab_size * (size + converted + 4 + 4 * each.repeated)
        return logits + activation_bytes(outline, dtype, tokens) // len(outline.layers)

    return max(map(of, passes), default=0) + 2 * size * trained


def mapped_bytes(files: Iterable[Path], device: str) -> int:
    """Return what of a checkpoint's files stays mapped into a process that has the model in memory.

    Tensors that are used as they are stored are pages of the file, and keep all of the others there.
    """
    return 0 if device.startswith("cuda") else sum(path.stat().st_size for path in files)


def process_bytes(device: str) -> int:
    """Return what a process takes of a device's memory before any weight."""
    return 0 if device.startswith("cuda") else int(_LIBRARIES)


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
