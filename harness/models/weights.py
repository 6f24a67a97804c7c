"""The bytes of a checkpoint's safetensors files: where each tensor lies, reading parts of it and overwriting them.

safetensors reads and writes whole files. Here only the experts of interest are read, and a checkpoint is changed by
copying its files and overwriting a few ranges, so that memory holds one tensor at a time and every other byte,
headers included, stays as it was. The format: eight bytes with the header's length, the header (JSON: dtype, shape
and byte range of each tensor), the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.base.errors import BadInputError, HarnessError

if TYPE_CHECKING:
    import torch

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"

# What experts are trained in. Anything else holds numbers in a code of its own.
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_LENGTH = 8


class Place(NamedTuple):
    """Where a tensor lies.

    Attributes:
        file: path of the file.
        dtype: as safetensors calls it, such as BF16.
        shape: of the tensor.
        start: of its first byte, counted from the file's.
        size: in bytes.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """Its dtype for torch.

        Raises:
            BadInputError: it is no plain floating point.
        """
        import torch

        if self.dtype not in _DTYPES:
            raise BadInputError(
                f"{self.file} stores expert weights as {self.dtype}: expected a dequantized checkpoint "
                f"({', '.join(_DTYPES)})"
            )
        dtype: torch.dtype = getattr(torch, _DTYPES[self.dtype])
        return dtype

    def row(self, number: int) -> Place:
        """Return the place of one row, an index of the first dimension."""
        size = self.size // self.shape[0]
        return Place(self.file, self.dtype, self.shape[1:], self.start + number * size, size)

    def read_bytes(self) -> bytes:
        """Return the stored bytes."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)

    def read(self) -> torch.Tensor:
        """Return the tensor, a copy."""
        import torch

        return torch.frombuffer(bytearray(self.read_bytes()), dtype=self.torch_dtype).reshape(self.shape)

    def write(self, value: torch.Tensor) -> None:
        """Overwrite the stored bytes by those of a tensor of the same dtype and shape."""
        self.write_bytes(bytes_of(value))

    def write_bytes(self, data: bytes) -> None:
        """Overwrite the stored bytes."""
        if len(data) != self.size:
            raise HarnessError(f"{self.file}: {len(data)} bytes for a place of {self.size}")
        with self.file.open("r+b") as file:
            file.seek(self.start)
            file.write(data)


def bytes_of(value: torch.Tensor) -> bytes:
    """Return a tensor's bytes as safetensors stores them."""
    import torch

    data: bytes = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return data


def weight_files(folder: Path) -> list[str]:
    """Return the names of the safetensors files of a checkpoint.

    Raises:
        BadInputError: it has none, or an index that names no files.
    """
    if (folder / INDEX).is_file():
        try:
            return sorted(
                set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInputError(
                f"{folder / INDEX} is no index of safetensors files: no weight_map"
            ) from error
    if not (folder / SINGLE).is_file():
        raise BadInputError(f"{folder}: no safetensors weights, expected {SINGLE} or {INDEX}")
    return [SINGLE]


def places(folder: Path) -> dict[str, Place]:
    """Return the place of every tensor of a checkpoint, by name.

    Raises:
        BadInputError: it has no safetensors weights.
        HarnessError: a file is missing or not whole.
    """
    return {name: place for file in weight_files(folder) for name, place in _in_file(folder / file)}


def _in_file(path: Path) -> Iterator[tuple[str, Place]]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
            size = path.stat().st_size
            if not 0 < length <= size - _LENGTH:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        found = [
            (name, Place(path, entry["dtype"], tuple(entry["shape"]), _LENGTH + length + first, last - first))
            for name, entry in header.items()
            for first, last in [entry["data_offsets"]]
        ]
        end = max((place.start + place.size for _, place in found), default=_LENGTH + length)
        if end != size:
            raise ValueError(f"{size} bytes, its header says {end}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HarnessError(f"{path}: not a whole safetensors file ({error})") from error
    yield from found
