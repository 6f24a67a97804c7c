"""The tensors of a quantised checkpoint as plain numbers: names and shapes from the headers, then values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError
from harness.models.codes import from_fp8, from_mxfp4
from harness.models.quantized import Quantization, quantization_of, remedy, scale_grid
from harness.models.weights import Place, bytes_of, places

if TYPE_CHECKING:
    import torch

_BLOCKS, _SCALES, _SCALE = "_blocks", "_scales", "_scale_inv"
_CODES = {"U8": "uint8", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu"}
_SCALES_OF_FP8 = ("F32", "BF16", "F16", "U8", "F8_E8M0")
_CHUNK = 1 << 24


@dataclass(frozen=True)
class PlainTensor:
    """A tensor of the checkpoint as plain numbers.

    Attributes:
        name: in the copy.
        place: of its values, or of their codes.
        scales: of its scales; None where it is copied as it is.
        shape: in the copy.
        block: of FP8; None for MXFP4.
    """

    name: str
    place: Place
    scales: Place | None
    shape: tuple[int, ...]
    block: tuple[int, int] | None = None

    @property
    def dtype(self) -> str:
        """Its dtype in the copy, as safetensors calls it."""
        return self.place.dtype if self.scales is None else "BF16"

    @property
    def size(self) -> int:
        """Its bytes in the copy."""
        return self.place.size if self.scales is None else 2 * math.prod(self.shape)

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes in order, of one expert at a time where it holds several.

        Raises:
            BadInputError: a value is not finite.
        """
        if self.scales is not None:
            yield from map(bytes_of, self._decoded())
            return
        with self.place.file.open("rb") as file:
            file.seek(self.place.start)
            for start in range(0, self.place.size, _CHUNK):
                yield file.read(min(_CHUNK, self.place.size - start))

    def value(self) -> torch.Tensor:
        """Return it whole.

        Raises:
            BadInputError: a value is not finite.
        """
        import torch
        from safetensors import safe_open

        if self.scales is None:
            with safe_open(self.place.file, framework="pt") as file:
                stored: torch.Tensor = file.get_tensor(self.name)
            return stored
        value = torch.empty(self.shape, dtype=torch.bfloat16)
        for row, part in zip(value if len(self.shape) > 2 else [value], self._decoded(), strict=True):
            row.copy_(part)
        return value

    def _decoded(self) -> Iterator[torch.Tensor]:
        """Yield its matrices, one or one per expert."""
        if self.scales is None:
            return
        pairs = [(self.place, self.scales)]
        if len(self.shape) > 2:
            pairs = [(self.place.row(row), self.scales.row(row)) for row in range(self.shape[0])]
        for place, scales in pairs:
            codes, factors = _read(place), _read(scales)
            # gpt-oss multiplies from the other side: on disk [out, in], in the model [in, out].
            value = from_fp8(codes, factors, self.block) if self.block else from_mxfp4(codes, factors).T
            if not value.isfinite().all():
                raise BadInputError(
                    f"{place.file}: {self.name} holds codes or scales that are no finite numbers: the file is damaged"
                )
            yield value


def _read(place: Place) -> torch.Tensor:
    """Read a tensor of codes or scales."""
    import torch

    dtype = getattr(torch, _CODES[place.dtype]) if place.dtype in _CODES else place.torch_dtype
    return torch.frombuffer(bytearray(place.read_bytes()), dtype=dtype).reshape(place.shape)


def plain_tensors(
    stored: Mapping[str, Place], quantization: Quantization, folder: Path
) -> dict[str, PlainTensor]:
    """Return the tensors of a quantised checkpoint as they are after decoding, by name, without reading values.

    Args:
        stored: its tensors.
        quantization: how they are stored.
        folder: of the checkpoint, for messages.

    Raises:
        BadInputError: the method is not known, or a tensor does not follow it.
    """
    if not quantization.is_known:
        raise BadInputError(f"{folder} is quantized ({quantization}): {remedy(folder, quantization)}")
    decoded = _of_mxfp4(stored) if quantization.block is None else _of_fp8(stored, quantization.block)
    used = {name for pair in decoded.values() for name in pair.stored}
    if not used:
        raise BadInputError(f"{folder}: config.json says {quantization}, but no tensor is stored so")
    endings = (_BLOCKS, _SCALES) if quantization.block is None else (_SCALE,)
    plain = {}
    for name, place in stored.items():
        if name in used:
            continue
        if place.dtype.startswith("F8_") or name.endswith(endings):
            raise BadInputError(
                f"{place.file}: {name} is {place.dtype} {list(place.shape)} without its counterpart: expected "
                f"weights in {quantization} with their scales"
            )
        plain[name] = PlainTensor(name, place, None, place.shape)
    return plain | {name: pair.tensor for name, pair in decoded.items()}


@dataclass(frozen=True)
class _Pair:
    """A tensor to decode, and the names on disk that it is made from."""

    tensor: PlainTensor
    stored: tuple[str, str]


def _of_mxfp4(stored: Mapping[str, Place]) -> dict[str, _Pair]:
    """Find gpt-oss' experts: codes [E, out, G, B] and scales [E, out, G] become [E, 2 G B, out]."""
    found = {}
    for name, codes in stored.items():
        target = name.removesuffix(_BLOCKS)
        scales = stored.get(target + _SCALES)
        if target == name or scales is None:
            continue
        _expect(name, codes, ("U8",), codes.shape if len(codes.shape) == 4 else ("E", "out", "groups", 16))
        _expect(target + _SCALES, scales, ("U8",), codes.shape[:-1])
        experts, rows, groups, size = codes.shape
        tensor = PlainTensor(target, codes, scales, (experts, 2 * groups * size, rows))
        found[target] = _Pair(tensor, (name, target + _SCALES))
    return found


def _of_fp8(stored: Mapping[str, Place], block: tuple[int, int]) -> dict[str, _Pair]:
    """Find the weights that have scales, of a layer or of all its experts."""
    found = {}
    for name, codes in stored.items():
        scales = stored.get(name + _SCALE)
        if scales is None:
            continue
        right = codes.shape if len(codes.shape) in (2, 3) else ("rows", "columns")
        _expect(name, codes, ("F8_E4M3",), right)
        _expect(name + _SCALE, scales, _SCALES_OF_FP8, scale_grid(codes.shape, block))
        found[name] = _Pair(PlainTensor(name, codes, scales, codes.shape, block), (name, name + _SCALE))
    return found


def _expect(name: str, place: Place, dtypes: tuple[str, ...], shape: tuple[int | str, ...]) -> None:
    if place.dtype not in dtypes or place.shape != shape:
        wanted = ", ".join(map(str, shape))
        raise BadInputError(
            f"{place.file}: {name}: expected {' or '.join(dtypes)} [{wanted}], found {place.dtype} {list(place.shape)}"
        )


def uneven(tensors: Mapping[str, PlainTensor]) -> str | None:
    """Return the first tensor in FP8 that transformers does not decode rightly on loading, or None.

    It takes the size of blocks from the number of scales: [300, ...] with 3 rows of scales becomes blocks of 100 rows
    instead of 128, 128 and 44, which is wrong without a word; [576, ...] with 5, as in DeepSeek-V3, is an error.
    """
    for name, tensor in sorted(tensors.items()):
        if tensor.block is None or tensor.scales is None:
            continue
        sizes = zip(tensor.shape[-2:], tensor.scales.shape[-2:], tensor.block, strict=True)
        if any(count > 1 and size != count * block for size, count, block in sizes):
            return name
    return None


def decoded_here(folder: Path) -> dict[str, PlainTensor] | None:
    """Return the tensors of a quantised checkpoint that transformers cannot decode itself on loading, or None."""
    quantization = quantization_of(folder)
    if quantization is None or quantization.block is None:
        return None
    tensors = plain_tensors(places(folder), quantization, folder)
    return None if uneven(tensors) is None else tensors
