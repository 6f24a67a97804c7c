"""Merged checkpoints: the base's files with a delta's experts in them, as transformers and vLLM load them.

The files are copied and the trained experts' bytes overwritten in the copy. Names, order, shards, headers, tokenizer
and every frozen byte stay the base's, and memory holds one expert at a time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from harness.base.errors import BadInputError, HarnessError
from harness.base.files import amount, full_disk_named
from harness.base.progress import say
from harness.checkpoints.copying import contents, copy_checkpoint
from harness.checkpoints.delta import check_delta, write_delta_into
from harness.checkpoints.proof import experts_that_differ
from harness.models.auto import load_weights
from harness.models.moe import find_moe
from harness.models.quantized import refuse_quantized
from harness.models.stored import Piece, StoredExperts, UntraceableError
from harness.models.weights import bytes_of, places

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.models.load import ModelRef


_CHUNK = 16 << 20


@dataclass(frozen=True)
class Merged:
    """The result of writing a merged checkpoint.

    Attributes:
        method: "streamed", expert by expert; or "loaded", by transformers with the whole model in memory.
        tensors: stored tensors that were written to.
        changed_bytes: bytes that were overwritten.
        total_bytes: bytes of the weight files.
        left_out: files of the base that were not copied, with the reason.
    """

    method: Literal["streamed", "loaded"]
    tensors: int
    changed_bytes: int
    total_bytes: int
    left_out: Mapping[str, str]

    @property
    def proof(self) -> str:
        """What was checked about what was written, in a sentence."""
        if self.method == "streamed":
            return (
                "The experts were read back from these files and equal the delta bit for bit; every other byte of the "
                "weights was copied from the base."
            )
        return (
            "transformers wrote the merged model, which differs from the base in these experts' tensors alone; every "
            "other byte of the weights was copied from the base."
        )


def write_merged(
    ref: ModelRef,
    delta: ExpertDelta,
    out: Path,
    advance: Callable[[int], None] | None = None,
) -> Merged:
    """Write the whole merged checkpoint with all files beside it into a new folder, and read the experts back.

    The base's README.md stays behind: whoever keeps the folder writes a card of its own into it.

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
    found = contents(ref.path)
    sizes = {name: (ref.path / name).stat().st_size for name in (*found.weights, *found.beside)}
    total = sum(sizes[name] for name in found.weights)
    out.parent.mkdir(parents=True, exist_ok=True)
    check_disk(sum(sizes.values()), out.absolute().parent)
    with (
        full_disk_named(out, total),
        pieces_of(ref, delta, out.absolute().parent) as (method, pieces),
    ):
        copy_checkpoint(ref.path, out, found, _CHUNK, advance)
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
    return Merged(method, len(tensors), changed, total, found.left_out)


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


def check_disk(needed: int, folder: Path) -> None:
    """Refuse to write a checkpoint of so many bytes where they do not fit.

    Raises:
        HarnessError: says what is needed and what is free.
    """
    free = shutil.disk_usage(folder).free
    if free < 1.05 * needed:
        raise HarnessError(
            f"the new checkpoint takes {amount(needed)}, {folder} has {amount(free)} free: "
            "make room or choose another place"
        )


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
