"""Merged checkpoints: the base's files with a delta's experts in them, as transformers and vLLM load them.

The files are copied and the trained experts' bytes overwritten in the copy. Names, order, shards, headers, tokenizer
and every frozen byte stay the base's, and memory holds one expert at a time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from harness.base.errors import BadInputError, HarnessError
from harness.base.files import full_disk_named
from harness.base.progress import say
from harness.checkpoints.delta import check_delta, write_delta_into
from harness.checkpoints.proof import experts_that_differ
from harness.models.auto import load_weights, refuse_quantized
from harness.models.moe import find_moe
from harness.models.stored import Piece, StoredExperts, UntraceableError
from harness.models.weights import INDEX, bytes_of, places, weight_files

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.models.load import ModelRef

_CHUNK = 16 << 20
# Weights in other formats, which would contradict the merged ones.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".index.json")


@dataclass(frozen=True)
class Merged:
    """The result of writing a merged checkpoint.

    Attributes:
        method: "streamed", expert by expert; or "loaded", by transformers with the whole model in memory.
        tensors: stored tensors that were written to.
        changed_bytes: bytes that were overwritten.
        total_bytes: bytes of the weight files.
    """

    method: Literal["streamed", "loaded"]
    tensors: int
    changed_bytes: int
    total_bytes: int


def write_merged(
    ref: ModelRef,
    delta: ExpertDelta,
    out: Path,
    advance: Callable[[int], None] | None = None,
) -> Merged:
    """Write the whole merged checkpoint with its tokenizer into a new folder, and read the experts back.

    Args:
        ref: the base.
        delta: the new experts.
        out: folder to write.
        advance: called with the bytes of weights that were copied.

    Raises:
        BadInputError: the checkpoint is quantized, or the delta does not fit it.
        HarnessError: the disk is too small, or what was written reads back otherwise.
    """
    refuse_quantized(ref.path)
    total = sum((ref.path / name).stat().st_size for name in weight_files(ref.path))
    out.parent.mkdir(parents=True, exist_ok=True)
    _check_disk(total, out.absolute().parent)
    with full_disk_named(out, total), pieces_of(ref, delta, out.absolute().parent) as (method, pieces):
        _copy_checkpoint(ref.path, out, advance)
        written = places(out)
        tensors: set[str] = set()
        changed = 0
        for piece in pieces:
            place = piece.place(written)
            place.write(piece.value)
            tensors.add(piece.tensor)
            changed += place.size
    if method == "streamed":
        _read_back(replace(ref, path=out), delta)
    return Merged(method, len(tensors), changed, total)


@contextmanager
def pieces_of(
    ref: ModelRef, delta: ExpertDelta, room: Path
) -> Iterator[tuple[Literal["streamed", "loaded"], Iterator[Piece]]]:
    """Give the pieces that a delta puts in place of its base's stored tensors, one expert's part at a time.

    Args:
        ref: the base.
        delta: the new experts.
        room: where a whole checkpoint may lie for a while, should transformers have to write one.

    Raises:
        BadInputError: the delta does not fit the model.
    """
    try:
        stored = StoredExperts(ref)
        check_delta(stored.moe, delta)
        _check_round_trip(stored, delta)
    except UntraceableError as error:
        say(f"{error}: loading the whole model with transformers instead")
        with tempfile.TemporaryDirectory(prefix=".merge-", dir=room) as temporary:
            yield "loaded", _through_transformers(ref, delta, Path(temporary))
    else:
        yield (
            "streamed",
            (piece for expert, name, value in delta.values() for piece in stored.pieces(expert, name, value)),
        )


def _check_disk(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < 1.05 * needed:
        raise HarnessError(
            f"the merged checkpoint takes {needed / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free: "
            "make room or choose another place"
        )


def _copy_checkpoint(source: Path, out: Path, advance: Callable[[int], None] | None) -> None:
    """Copy a checkpoint's files, weights and everything beside them."""
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and (file.name == INDEX or not file.name.endswith(_WEIGHTS)):
            shutil.copyfile(file, out / file.name)
    if (source / "additional_chat_templates").is_dir():
        shutil.copytree(source / "additional_chat_templates", out / "additional_chat_templates")
    for name in weight_files(source):
        with (source / name).open("rb") as old, (out / name).open("wb") as new:
            while chunk := old.read(_CHUNK):
                new.write(chunk)
                if advance is not None:
                    advance(len(chunk))


def _check_round_trip(stored: StoredExperts, delta: ExpertDelta) -> None:
    """Make sure that converting from the files to the model and back is the identity, on the base's own experts.

    Raises:
        UntraceableError: it is not.
        BadInputError: the files hold a coarser dtype than the delta.
    """
    for expert, name, value in delta.values():
        own = stored.value(expert, name)
        if value.dtype != own.dtype and not torch.equal(value.to(own.dtype).to(value.dtype), value):
            raise BadInputError(
                f"layer {expert.layer} expert {expert.expert}, {name}: the delta's values are {value.dtype}, "
                f"{stored.folder} stores {own.dtype}, which cannot hold them"
            )
        for piece in stored.pieces(expert, name, own):
            if piece.place(stored.places).read_bytes() != bytes_of(piece.value):
                raise UntraceableError(
                    f"{piece.tensor}: transformers' way back from memory gives other values"
                )


def _read_back(written: ModelRef, delta: ExpertDelta) -> None:
    stored = StoredExperts(written)
    for expert, name, value in delta.values():
        written_value = stored.value(expert, name)
        if bytes_of(written_value) != bytes_of(value.to(written_value.dtype)):
            raise HarnessError(
                f"{written.path}: layer {expert.layer} expert {expert.expert}, {name} reads back other values than "
                "the delta's"
            )


def _through_transformers(ref: ModelRef, delta: ExpertDelta, temporary: Path) -> Iterator[Piece]:
    """Let transformers write the merged model and yield the tensors in which it differs from the base."""
    folder = ref.path
    model, _ = load_weights(folder, ref.trust_remote_code)
    write_delta_into(find_moe(model), delta)
    model.save_pretrained(temporary)
    del model
    old, new = places(folder), places(temporary)
    if {n: (p.dtype, p.shape) for n, p in old.items()} != {n: (p.dtype, p.shape) for n, p in new.items()}:
        raise HarnessError(
            f"transformers does not write the tensors that {folder} holds: the delta cannot be put into "
            "this checkpoint; save it anew with transformers first"
        )
    selected = set(delta.selected())
    for name in old:
        differing = list(experts_that_differ(name, old[name], new[name]))
        if any(key not in selected for key in differing):
            raise HarnessError(f"transformers changed {name} of {folder}, which the delta does not touch")
        if differing:
            yield Piece(name, None, new[name].read())
