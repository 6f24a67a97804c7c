"""Expert deltas: the new values of the trained experts, and putting them into a model.

A delta holds whole values, not differences, in the checkpoint's dtype: the weights evaluated in memory are bit for
bit those of a merged checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.base.errors import BadInputError, HarnessError
from harness.base.files import write_whole
from harness.models.moe import Expert

if TYPE_CHECKING:
    from harness.models.moe import MoEModel


@dataclass(frozen=True)
class ExpertDelta:
    """New values of some experts.

    Attributes:
        base: fingerprint of the model that they belong to.
        experts: sorted expert numbers, by true layer index.
        tensors: by layer and weight name, [B, ...] in the order of `experts`.
    """

    base: str
    experts: dict[int, list[int]]
    tensors: dict[int, dict[str, torch.Tensor]]

    def selected(self) -> list[Expert]:
        """Return the experts of the delta."""
        return [Expert(layer, expert) for layer, numbers in self.experts.items() for expert in numbers]

    def values(self) -> Iterator[tuple[Expert, str, torch.Tensor]]:
        """Yield each expert's part of each weight, [...], one after another."""
        for layer, numbers in self.experts.items():
            for place, expert in enumerate(numbers):
                for name, values in self.tensors[layer].items():
                    yield Expert(layer, expert), name, values[place]

    @property
    def parameters(self) -> int:
        """Number of values."""
        return sum(tensor.numel() for layer in self.tensors.values() for tensor in layer.values())


def part_of(delta: ExpertDelta, experts: Collection[Expert]) -> ExpertDelta:
    """Return the new values of some of a delta's experts."""
    places = {
        layer: [place for place, number in enumerate(numbers) if Expert(layer, number) in experts]
        for layer, numbers in delta.experts.items()
    }
    kept = {layer: some for layer, some in places.items() if some}
    return ExpertDelta(
        delta.base,
        {layer: [delta.experts[layer][place] for place in some] for layer, some in kept.items()},
        {
            layer: {name: values[some] for name, values in delta.tensors[layer].items()}
            for layer, some in kept.items()
        },
    )


@contextmanager
def applied(moe: MoEModel, delta: ExpertDelta) -> Iterator[None]:
    """Put a delta into a model inside the block, and the original values back after it, exactly.

    Raises:
        BadInputError: the delta's experts or shapes are not the model's.
    """
    check_delta(moe, delta)
    before = {
        (layer, name): moe.layer(layer).weight(name)[numbers].clone()
        for layer, numbers in delta.experts.items()
        for name in delta.tensors[layer]
    }
    try:
        write_delta_into(moe, delta)
        yield
    finally:
        with torch.no_grad():
            for (layer, name), values in before.items():
                moe.layer(layer).weight(name)[delta.experts[layer]] = values


def write_delta_into(moe: MoEModel, delta: ExpertDelta) -> None:
    """Overwrite the experts of a model with those of a delta."""
    check_delta(moe, delta)
    with torch.no_grad():
        for layer, numbers in delta.experts.items():
            for name, values in delta.tensors[layer].items():
                weight = moe.layer(layer).weight(name)
                weight[numbers] = values.to(weight.device, weight.dtype)


def check_delta(moe: MoEModel, delta: ExpertDelta) -> None:
    """Refuse a delta whose experts, weights or shapes are not the model's.

    Raises:
        BadInputError: names the first that is not.
    """
    moe.check(delta.selected())
    for layer, numbers in delta.experts.items():
        weights = moe.layer(layer).weights
        tensors = delta.tensors.get(layer, {})
        if set(tensors) != set(weights):
            raise BadInputError(
                f"delta of layer {layer}: holds {', '.join(sorted(tensors)) or 'nothing'}, "
                f"the model's experts have {', '.join(sorted(weights))}"
            )
        for name, values in tensors.items():
            # The number of experts too: assignment would broadcast one expert's values to all of them.
            expected = [len(numbers), *moe.layer(layer).weight(name).shape[1:]]
            if list(values.shape) != expected:
                raise BadInputError(
                    f"delta of layer {layer}, {name}: shape {list(values.shape)}, expected {expected}"
                )


def save_delta(delta: ExpertDelta, path: Path) -> None:
    """Write a delta as safetensors; base and expert numbers are in the file's metadata.

    Raises:
        HarnessError: a value is not a finite number.
    """
    from safetensors.torch import save_file

    if (place := _not_finite(delta.tensors)) is not None:
        raise HarnessError(f"{path}: {place} is not a finite number: the training has diverged")

    tensors = {
        f"layers.{layer}.experts.{name}": values.cpu().contiguous()
        for layer, named in delta.tensors.items()
        for name, values in named.items()
    }
    # One entry: safetensors writes several in a random order, and equal deltas should be equal files.
    header = {"harness": json.dumps({"base": delta.base, "experts": delta.experts})}
    size = sum(values.nbytes for values in tensors.values())
    write_whole(path, lambda temporary: save_file(tensors, temporary, metadata=header), size)


def load_delta(path: Path) -> ExpertDelta:
    """Read a delta.

    Raises:
        BadInputError: the file is truncated, is not a delta, or has a value that is not a finite number.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["harness"])
            experts = {int(layer): list(numbers) for layer, numbers in header["experts"].items()}
            tensors: dict[int, dict[str, torch.Tensor]] = {layer: {} for layer in experts}
            for key in file.keys():  # noqa: SIM118 (a safetensors handle is not a mapping)
                _, layer, _, name = key.split(".", 3)
                tensors[int(layer)][name] = file.get_tensor(key)
    except (
        SafetensorError,
        OSError,
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        RecursionError,
    ) as error:
        raise BadInputError(f"{path} is not a whole expert delta: {error}") from error
    if (place := _not_finite(tensors)) is not None:
        raise BadInputError(f"{path}: {place} is not a finite number: it cannot be applied")
    return ExpertDelta(header["base"], experts, tensors)


def _not_finite(tensors: Mapping[int, Mapping[str, torch.Tensor]]) -> str | None:
    """Return the weight that has a value that is no finite number, in words, or None."""
    for layer, named in tensors.items():
        for name, values in named.items():
            if not torch.isfinite(values if values.dtype.itemsize > 1 else values.float()).all():
                return f"a value of layer {layer}, {name},"
    return None
