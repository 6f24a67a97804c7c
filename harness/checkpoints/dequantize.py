"""Writing a quantised checkpoint anew with plain numbers, one expert in memory at a time."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError
from harness.base.files import read_json_object, write_json
from harness.base.progress import progress
from harness.checkpoints.apply import refuse_existing, whole_folder
from harness.checkpoints.copying import TOOLS
from harness.checkpoints.merge import check_disk
from harness.checkpoints.same_logits import Likeness, compare_logits
from harness.models.auto import check_weights, outline
from harness.models.dequantized import PlainTensor, plain_tensors
from harness.models.load import ModelRef
from harness.models.quantized import KEY, Quantization, quantization_of
from harness.models.weights import INDEX, places, weight_files


@dataclass(frozen=True)
class Dequantized:
    """The result of writing a checkpoint with plain numbers.

    Attributes:
        quantization: of the original.
        decoded: tensors that were decoded to bfloat16.
        copied: tensors that were copied as they are.
        bytes_before: of the original's tensors.
        bytes_after: of the copy's.
        likeness: of the two models' logits, or why they were not compared.
    """

    quantization: Quantization
    decoded: int
    copied: int
    bytes_before: int
    bytes_after: int
    likeness: Likeness | str


def dequantize_checkpoint(ref: ModelRef, out: Path) -> Dequantized:
    """Write the copy of an MXFP4 or FP8 checkpoint whose weights are bfloat16; every other file is kept.

    Args:
        ref: the checkpoint.
        out: folder to write, new or empty; it appears when all is done.

    Raises:
        BadInputError: the checkpoint is not quantised, or in an unknown way, or damaged; `out` holds something.
        HarnessError: the disk is too small, or the copy's logits are not the original's.
    """
    source = ref.path
    refuse_existing(out, source)
    quantization = quantization_of(source)
    if quantization is None:
        raise BadInputError(f"{source} is not quantized: there is nothing to decode")
    stored = places(source)
    tensors = plain_tensors(stored, quantization, source)
    check_weights(outline(source, ref.trust_remote_code), source)
    size = sum(tensor.size for tensor in tensors.values())
    room = next(folder for folder in out.absolute().parents if folder.is_dir())
    check_disk(size, room)
    with whole_folder(out) as partial:
        _copy_other_files(source, partial)
        with progress("dequantize", len(tensors), "tensors") as advance:
            files = _write_shards(source, partial, tensors, advance)
        _write_index(source, partial, tensors, files)
        _write_config(source, partial)
        check_weights(outline(partial, ref.trust_remote_code), partial)
        likeness = compare_logits(ref, ModelRef(ref.name, partial, ref.trust_remote_code), size)
    decoded = sum(tensor.scales is not None for tensor in tensors.values())
    before = sum(place.size for place in stored.values())
    return Dequantized(quantization, decoded, len(tensors) - decoded, before, size, likeness)


def _copy_other_files(source: Path, out: Path) -> None:
    weights = {*weight_files(source), INDEX, "config.json"}
    for path in sorted(source.iterdir()):
        if path.is_dir():
            if path.name not in TOOLS:
                shutil.copytree(path, out / path.name)
        elif path.name not in weights:
            shutil.copyfile(path, out / path.name)


def _write_shards(
    source: Path, out: Path, tensors: Mapping[str, PlainTensor], advance: Callable[[int], None]
) -> dict[str, str]:
    """Write each file anew; returns the name of the file that holds each tensor."""
    held: dict[str, str] = {}
    for name in weight_files(source):
        # Scales may have had a file to themselves.
        inside = [tensor for tensor in tensors.values() if tensor.place.file.name == name]
        if inside:
            _write_file(out / name, inside, advance)
        held.update((tensor.name, name) for tensor in inside)
    return held


def _write_file(path: Path, tensors: Sequence[PlainTensor], advance: Callable[[int], None]) -> None:
    """Write a safetensors file; wide dtypes come first, so that each value is aligned."""
    ordered = sorted(
        tensors, key=lambda tensor: (-tensor.size // max(1, math.prod(tensor.shape)), tensor.name)
    )
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in ordered:
        offsets = [end, end := end + tensor.size]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in ordered:
            for chunk in tensor.chunks():
                file.write(chunk)
            advance(1)


def _write_index(
    source: Path, out: Path, tensors: Mapping[str, PlainTensor], files: Mapping[str, str]
) -> None:
    if not (source / INDEX).is_file():
        return
    index = read_json_object(source / INDEX)
    metadata = index.get("metadata")
    totals = {"total_size": sum(tensor.size for tensor in tensors.values())}
    if isinstance(metadata, dict) and "total_parameters" in metadata:
        totals["total_parameters"] = sum(math.prod(tensor.shape) for tensor in tensors.values())
    kept = metadata if isinstance(metadata, dict) else {}
    write_json(
        out / INDEX, {**index, "metadata": {**kept, **totals}, "weight_map": dict(sorted(files.items()))}
    )


def _write_config(source: Path, out: Path) -> None:
    config = read_json_object(source / "config.json")
    text = config.get("text_config")
    parts = [part for part in (config, text) if isinstance(part, dict)]
    for part in parts:
        part.pop(KEY, None)
    # Without it, the dtype of whichever tensor comes first would be taken.
    if not any(part.get("dtype") or part.get("torch_dtype") for part in parts):
        config["dtype"] = "bfloat16"
    write_json(out / "config.json", config)
