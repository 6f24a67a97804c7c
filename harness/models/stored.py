"""Where a model's experts lie in its checkpoint's files, and how they are laid out there.

In memory an experts module holds fused tensors, [E, ...]. On disk a family may keep the same, or one tensor per expert
and projection, or something else; transformers describes the conversion as operations that it runs on loading
and reverses on saving. Here the same operations run on single experts: none of them mixes experts, and where one
would, shapes no longer fit and the checkpoint counts as not traceable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.base.errors import HarnessError
from harness.models.load import ModelRef, outline_model
from harness.models.moe import Expert, MoEModel
from harness.models.weights import Place, bytes_of, places

if TYPE_CHECKING:
    import torch


class UntraceableError(HarnessError):
    """The files' layout cannot be followed one expert at a time; says why."""


class Piece(NamedTuple):
    """A part of one expert as it lies on disk.

    Attributes:
        tensor: name of the stored tensor.
        row: of that tensor where it holds all experts; None where it is this expert's alone.
        value: in the layout of the file.
    """

    tensor: str
    row: int | None
    value: torch.Tensor

    def place(self, among: Mapping[str, Place]) -> Place:
        """Return the bytes that hold it, in any checkpoint of the same layout."""
        place = among[self.tensor]
        return place if self.row is None else place.row(self.row)


@dataclass(frozen=True)
class _Stored:
    """One fused tensor of the model.

    Attributes:
        name: in the model.
        shape: there, [E, ...].
        converter: transformers' operations on loading; None where the file holds the tensor as it is.
        tensors: names on disk by the converter's source pattern: E of them, or one for all experts.
    """

    name: str
    shape: tuple[int, ...]
    converter: Any
    tensors: dict[str | None, list[str]]


class StoredExperts:
    """The experts in the files of a checkpoint.

    Args:
        ref: the checkpoint.

    Attributes:
        moe: the model on the meta device.
        places: where each tensor lies.

    Raises:
        BadInputError: not a checkpoint of a model that is served.
        UntraceableError: its layout cannot be followed.
    """

    def __init__(self, ref: ModelRef) -> None:
        self.folder = folder = ref.path
        self.moe: MoEModel = outline_model(ref)
        self.places = places(folder)
        self._stored = _locate(self.moe, self.places, folder)

    def value(self, expert: Expert, name: str) -> torch.Tensor:
        """Read one expert's part of a fused tensor: [...], laid out as in the model, in the dtype on disk."""
        stored = self._stored[expert.layer, name]
        parts = {}
        for pattern, names in stored.tensors.items():
            tensor = self._place(names, expert.expert).read()
            parts[pattern] = [tensor.unsqueeze(0) if len(names) == 1 else tensor]
        if stored.converter is None:
            return next(iter(parts.values()))[0].squeeze(0)
        values = self._convert(stored, stored.converter, parts, (1, *stored.shape[1:]))
        if len(values) != 1 or tuple(values[0].shape) != (1, *stored.shape[1:]):
            raise UntraceableError(
                f"{stored.name}: one expert converts to {_shapes(values)}, expected {[1, *stored.shape[1:]]}"
            )
        return values[0].squeeze(0)

    def pieces(self, expert: Expert, name: str, value: torch.Tensor) -> Iterator[Piece]:
        """Yield the pieces on disk of one expert's part of a fused tensor, in the dtype there."""
        stored = self._stored[expert.layer, name]
        names = list(stored.tensors.values())
        if stored.converter is None:
            converted = [value]
        else:
            reverse = stored.converter.reverse_transform()
            # A transposition that depends on the shape asks which one is wanted: here the one on disk.
            wanted = (1, *self._place(names[0], expert.expert).shape)
            parts = {reverse.source_patterns[0]: [value.unsqueeze(0)]}
            converted = self._convert(stored, reverse, parts, wanted)
        if len(converted) != len(names):
            raise UntraceableError(
                f"{stored.name}: becomes {len(converted)} tensors, the file has {len(names)}"
            )
        for tensors, part in zip(names, converted, strict=True):
            place = self._place(tensors, expert.expert)
            # Operations leave the expert's dimension only where the file has it.
            part = part.squeeze(0) if part.ndim > len(place.shape) else part
            if tuple(part.shape) != place.shape:
                raise UntraceableError(f"{tensors[0]}: {list(part.shape)}, the file has {list(place.shape)}")
            shared = len(tensors) == 1
            yield Piece(
                tensors[0] if shared else tensors[expert.expert],
                expert.expert if shared else None,
                part.to(place.torch_dtype),
            )

    def digest(self, experts: Iterable[Expert]) -> str:
        """Return sha256 over the stored values of some experts, laid out as in the model."""
        total = hashlib.sha256()
        for expert in sorted(experts):
            for name in self.moe.layer(expert.layer).weights:
                value = self.value(expert, name)
                total.update(
                    f"{expert.layer} {expert.expert} {name} {value.dtype} {list(value.shape)}\n".encode()
                )
                total.update(bytes_of(value))
        return total.hexdigest()

    def _place(self, names: list[str], expert: int) -> Place:
        return self.places[names[0]].row(expert) if len(names) == 1 else self.places[names[expert]]

    def _convert(
        self,
        stored: _Stored,
        transform: Any,
        parts: dict[str | None, list[torch.Tensor]],
        shape: tuple[int, ...],
    ) -> list[torch.Tensor]:
        """Run a transform's operations on one expert."""
        import torch

        # Some operations ask the model for the shape of the tensor at hand: one expert's.
        model = SimpleNamespace(get_parameter=lambda _name: torch.empty(shape, device="meta"))
        tensors: Mapping[Any, Any] = parts
        for operation in transform.operations:
            tensors = operation.convert(
                tensors,
                source_patterns=transform.source_patterns,
                target_patterns=transform.target_patterns,
                full_layer_name=stored.name,
                model=model,
                config=self.moe.model.config,
                missing_keys=None,
            )
        return [value[0] if isinstance(value, list) else value for value in tensors.values()]


def _locate(moe: MoEModel, stored: Mapping[str, Place], folder: Path) -> dict[tuple[int, str], _Stored]:
    """Find the tensors on disk of every fused tensor, by (layer, weight name), as transformers would on loading."""
    import transformers

    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            dot_natural_key,
            rename_source_key,
        )
    except ImportError as error:
        raise UntraceableError(
            f"transformers {transformers.__version__} describes layouts elsewhere"
        ) from error
    model = moe.model
    transforms = get_model_conversion_mapping(model)
    renamings = [entry for entry in transforms if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in transforms if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: entry for entry in converters for pattern in entry.source_patterns}
    state, prefix = model.state_dict(), model.base_model_prefix
    wanted = {f"{layer.name}.{name}": (layer.index, name) for layer in moe.layers for name in layer.weights}
    sources: dict[str, dict[str | None, list[str]]] = {name: {} for name in wanted}
    for key in sorted(stored, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, prefix, state)
        if name not in state and key in state:
            name, pattern = rename_source_key(key, [], [], prefix, state)
        if name in sources:
            sources[name].setdefault(pattern, []).append(key)
    result = {}
    for name, (layer, weight) in wanted.items():
        patterns = [pattern for pattern in sources[name] if pattern is not None]
        converter = by_pattern[patterns[0]] if patterns else None
        shape = tuple(state[name].shape)
        names = sources[name]
        if converter is not None:
            # In the order that the operations know.
            names = {p: names[p] for p in converter.source_patterns if p in names}
        result[layer, weight] = _Stored(name, shape, converter, names)
        _check(result[layer, weight], sources[name], stored, folder)
    return result


def _check(
    entry: _Stored, sources: Mapping[str | None, list[str]], stored: Mapping[str, Place], folder: Path
) -> None:
    n_experts = entry.shape[0]
    if not sources:
        raise UntraceableError(f"{folder} holds no tensor for {entry.name}")
    if len(entry.tensors) != len(sources):
        raise UntraceableError(f"{entry.name} comes from tensors of several kinds in {folder}")
    if entry.converter is not None and len(entry.converter.target_patterns) > 1:
        raise UntraceableError(f"{entry.name} shares its tensors in {folder} with other weights")
    for names in entry.tensors.values():
        shape = stored[names[0]].shape
        whole = len(names) == 1 and len(shape) > 1 and shape[0] == n_experts
        if not whole and (len(names) != n_experts or n_experts == 1):
            raise UntraceableError(
                f"{entry.name}: {len(names)} tensors of shape {list(shape)} in {folder} for {n_experts} experts"
            )


def _shapes(tensors: Iterable[torch.Tensor]) -> str:
    return ", ".join(str(list(tensor.shape)) for tensor in tensors)
