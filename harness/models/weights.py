"""The bytes of a checkpoint's safetensors files: the place of each tensor, and reading and overwriting parts of it.

safetensors reads and writes whole files. Here only the experts of interest are read, and a checkpoint is changed by
copying its files and overwriting a few ranges, so that memory holds one tensor at a time and every other byte,
headers included, stays as it was. The format: eight bytes with the header's length, the header (JSON: dtype, shape
and byte range of each tensor), the data.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.base.errors import BadInputError, HarnessError
from harness.base.files import read_json_object

if TYPE_CHECKING:
    import torch

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"

# The dtypes that experts are trained in; any other holds quantized numbers.
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 0.75),
    "F4": 0.5,
}
_EXPERTS = re.compile(r"\.experts\.|\.block_sparse_moe\.(?:input|output)_linear\.")
_LENGTH = 8
# The format's own limit: a damaged length must not make us read a whole file.
_LONGEST_HEADER = 100_000_000
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


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

    @property
    def kind(self) -> str:
        """Its dtype and shape, as messages show them."""
        return f"{_DTYPES.get(self.dtype, self.dtype)} {list(self.shape)}"

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


def dtype_of_experts(stored: Mapping[str, Place]) -> torch.dtype | None:
    """Return the dtype that experts are stored in; of several, the one whose values all others hold.

    None where there is no such, or where experts are stored in a code.
    """
    import torch

    names = {place.dtype for name, place in stored.items() if _EXPERTS.search(name)}
    if not names <= _DTYPES.keys():
        return None
    dtypes = [getattr(torch, _DTYPES[name]) for name in sorted(names)]
    return next((dtype for dtype in dtypes if all(holds(other, dtype) for other in dtypes)), None)


def holds(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Say whether a dtype has every value of another one."""
    import torch

    return torch.promote_types(dtype, other) == dtype


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
    index = folder / INDEX
    if index.is_file():
        named = read_json_object(index).get("weight_map")
        names = list(named.values()) if isinstance(named, dict) else []
        if not names or not all(isinstance(name, str) for name in names):
            raise BadInputError(
                f"{index} is no index of safetensors files: expected a weight_map that names files"
            )
        for name in names:
            # What is copied by its name must not land elsewhere.
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise BadInputError(f"{index} names {name}: expected files of its folder")
        return sorted(set(names))
    if not (folder / SINGLE).is_file():
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickles:
            raise BadInputError(
                f"{folder} holds its weights as a pickle only ({pickles[0]}), which is never read: convert it to "
                "safetensors first, for example at huggingface.co/spaces/safetensors/convert"
            )
        raise BadInputError(f"{folder}: no safetensors weights, expected {SINGLE} or {INDEX}")
    return [SINGLE]


def places(folder: Path) -> dict[str, Place]:
    """Return the place of every tensor of a checkpoint, by name.

    Raises:
        BadInputError: it has no safetensors weights, or a file is missing or not whole.
    """
    return {name: place for file in weight_files(folder) for name, place in _in_file(folder / file)}


def _in_file(path: Path) -> Iterator[tuple[str, Place]]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
            size = path.stat().st_size
            if not 0 < length <= min(size - _LENGTH, _LONGEST_HEADER):
                raise ValueError(f"{size} bytes do not hold its header")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = [(name, _place(path, entry, _LENGTH + length)) for name, entry in header.items()]
        end = _LENGTH + length
        for place in sorted((place for _, place in tensors), key=lambda place: (place.start, place.size)):
            if place.start != end:
                raise ValueError(f"a tensor begins at byte {place.start}, expected {end}")
            end += place.size
        if end != size:
            raise ValueError(f"{size} bytes, its header says {end}")
    except FileNotFoundError as error:
        raise BadInputError(f"{path} is missing: expected every file that {INDEX} names") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInputError(f"{path}: not a whole safetensors file ({error})") from error
    yield from tensors


def _place(path: Path, entry: Mapping[str, Any], data: int) -> Place:
    """Read one entry of a header.

    Args:
        path: of the file.
        entry: dtype, shape and byte range.
        data: where the data begin in the file.
    """
    dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if min(first, last - first, *shape, 0) < 0:
        raise ValueError("its header holds negative sizes")
    if dtype not in _BYTES:
        raise ValueError(f"its header names the dtype {dtype}")
    if math.prod(shape) * _BYTES[dtype] != last - first:
        raise ValueError(f"its header gives {last - first} bytes to {dtype} {list(shape)}")
    return Place(path, dtype, shape, data + first, last - first)
