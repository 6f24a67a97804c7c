"""Putting a delta into a checkpoint on disk, with the checks that it is the right one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError
from harness.base.files import full_disk_named, move_folder
from harness.base.progress import progress, say
from harness.checkpoints.copying import contents
from harness.checkpoints.delta import check_delta
from harness.checkpoints.delta_file import TENSORS, digest_of_replaced, read_delta
from harness.checkpoints.merge import Merged, write_merged
from harness.checkpoints.model_card import write_model_card
from harness.checkpoints.proof import weights_fingerprint
from harness.models.auto import read_config_file
from harness.models.load import ModelRef, outline_model
from harness.models.moe import Expert
from harness.models.quantized import refuse_quantized
from harness.models.weights import weight_files

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.checkpoints.delta_file import DeltaCard


@dataclass(frozen=True)
class Applied:
    """The result of applying a delta.

    Attributes:
        base: name of the delta's base model.
        experts: that were replaced.
        merged: what was written; None after a dry run.
        left_out: files of the base that the new checkpoint does not have, with the reason.
    """

    base: str
    experts: list[Expert]
    merged: Merged | None
    left_out: Mapping[str, str]


def apply_delta(ref: ModelRef, delta: Path, out: Path, dry_run: bool = False) -> Applied:
    """Write the checkpoint of a model with a delta in it.

    Args:
        ref: the delta's base.
        delta: folder of the delta, or a run's variant folder.
        out: folder to write, new or empty.
        dry_run: check everything and write nothing.

    Raises:
        BadInputError: the delta is damaged or another model's, the checkpoint is quantized, or `out` holds something.
        HarnessError: the disk is too small, or what was written reads back otherwise.
    """
    refuse_existing(out, ref.path)
    card, values = read_delta(delta)
    check_base(ref, card, values)
    merged = None
    if not dry_run:
        with whole_folder(out) as partial, copying(ref.path) as advance:
            merged = write_merged(ref, values, partial, advance)
            check = f"`harness models diff BASE THIS --delta DELTA` with the {TENSORS} above compares all of it again."
            write_model_card(
                partial, ref.path, card, f"{merged.proof} {check}", merged.left_out, out.resolve().name
            )
    return Applied(card.base.name, values.selected(), merged, contents(ref.path).left_out)


def refuse_existing(out: Path, source: Path | None = None) -> None:
    """Refuse to write to a folder that holds something, or that is inside the one that is read.

    Raises:
        BadInputError: it does, or is.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInputError(f"'{out}' exists already: expected a new or empty folder to write to")
    if source is not None and out.resolve().is_relative_to(source.resolve()):
        raise BadInputError(f"'{out}' is inside {source}: expected a folder elsewhere")


def check_base(ref: ModelRef, card: DeltaCard, delta: ExpertDelta) -> None:
    """Refuse a model that is not a delta's base; cheap checks come first.

    Raises:
        BadInputError: says what is different.
    """
    refuse_quantized(ref.path)
    kind = read_config_file(ref.path)["model_type"]
    mismatch = f"the delta of '{card.base.name}' does not belong to '{ref.name}'"
    moe = outline_model(ref)
    if moe.model.config.model_type != card.model_type:
        raise BadInputError(f"{mismatch}: its model type is {card.model_type}, this one's is {kind}")
    try:
        check_delta(moe, delta)
    except BadInputError as error:
        raise BadInputError(f"{mismatch}: {error}") from error
    if card.base.experts is not None:
        # Where there is none, the hash of all weights below decides.
        digest = digest_of_replaced(ref, delta)
        if digest not in (None, card.base.experts):
            raise BadInputError(
                f"{mismatch}: the experts that it replaces have sha256 {card.base.experts[:12]} in its base, "
                f"{str(digest)[:12]} here"
            )
    say(f"checking the weights of {ref.name}")
    weights = weights_fingerprint(ref.path)
    if weights != card.base.weights:
        raise BadInputError(
            f"{mismatch}: its base's weights have sha256 {card.base.weights[:12]}, these have {weights[:12]}"
        )


@contextmanager
def copying(folder: Path) -> Iterator[Callable[[int], None]]:
    """Show a copy's progress in megabytes; yields a function that takes the bytes copied."""
    total = sum((folder / name).stat().st_size for name in weight_files(folder))
    done = 0
    with progress("write weights", -(-total // 10**6), "MB") as show:

        def advance(size: int) -> None:
            nonlocal done
            before, done = -(-done // 10**6), done + size
            show(-(-done // 10**6) - before)

        yield advance


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Let the block fill OUT.partial, which becomes OUT when it is done and goes away when it fails."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with full_disk_named(out):
            yield partial
            if out.exists():
                out.rmdir()
            move_folder(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
