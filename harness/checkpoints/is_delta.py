"""Whether a checkpoint is another one with a delta in it, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError
from harness.base.progress import progress
from harness.checkpoints.apply import check_base
from harness.checkpoints.delta_file import read_delta
from harness.checkpoints.merge import pieces_of
from harness.models.weights import bytes_of, places

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.models.load import ModelRef
    from harness.models.moe import Expert


def check_is_delta(base: ModelRef, model: ModelRef, delta: Path) -> list[Expert]:
    """Compare a model with its base and a delta: the delta's experts with the delta, everything else with the base.

    Args:
        base: the delta's base.
        model: the base with the delta in it.
        delta: folder of the delta.

    Returns:
        The delta's experts.

    Raises:
        BadInputError: the base is not the delta's, or the model is not base and delta, to the last bit.
    """
    card, values = read_delta(delta)
    check_base(base, card, values)
    difference = next(_differences(base, model, values), None)
    if difference is not None:
        raise BadInputError(f"'{model.path}' is not '{base.name}' with this delta: {difference}")
    return values.selected()


def _differences(base: ModelRef, model: ModelRef, delta: ExpertDelta) -> Iterator[str]:
    """Yield where a model is not its base and a delta: names and shapes first, then experts, then all other bytes."""
    old, new = places(base.path), places(model.path)
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            yield f"{(model if name in old else base).path} has no tensor {name}"
        elif (old[name].dtype, old[name].shape) != (new[name].dtype, new[name].shape):
            yield (
                f"{name} is {new[name].dtype} {list(new[name].shape)}, "
                f"in the base {old[name].dtype} {list(old[name].shape)}"
            )
    trained: set[tuple[str, int | None]] = set()
    with pieces_of(base, delta, model.path.absolute().parent) as (_, pieces):
        for piece in pieces:
            trained.add((piece.tensor, piece.row))
            if piece.place(new).read_bytes() != bytes_of(piece.value):
                yield f"{piece.tensor} holds other values than the delta"
    shared = {name for name, row in trained if row is not None}
    with progress("compare with the base", len(old), "tensors") as advance:
        for name, place in old.items():
            if name in shared:
                for row in range(place.shape[0]):
                    frozen = (name, row) not in trained
                    if frozen and place.row(row).read_bytes() != new[name].row(row).read_bytes():
                        yield f"{name}, expert {row}, is neither's"
            elif (name, None) not in trained and place.read_bytes() != new[name].read_bytes():
                yield f"{name} is neither's"
            advance(1)
