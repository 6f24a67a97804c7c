"""Whether a checkpoint is another one with a delta in it, to the last bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError
from harness.base.progress import progress
from harness.checkpoints.apply import check_base
from harness.checkpoints.delta_file import read_delta
from harness.checkpoints.merge import pieces_of
from harness.models.weights import Place, bytes_of, places

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.models.load import ModelRef
    from harness.models.moe import Expert

_CHUNK = 16 << 20


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
    old, new = places(base.path), places(model.path)
    _must_be_alike(old, new, model, base)
    spots = _check_experts(model, base, values, new, model.path.absolute().parent)
    _check_frozen(model, base, old, new, spots)
    return values.selected()


def _check_experts(
    model: ModelRef,
    base: ModelRef,
    delta: ExpertDelta,
    new: Mapping[str, Place],
    room: Path,
) -> dict[tuple[str, int | None], None]:
    """Make sure that the model's selected experts are the delta's; returns where they lie."""
    spots: dict[tuple[str, int | None], None] = {}
    with pieces_of(base, delta, room) as (_, pieces):
        for piece in pieces:
            if piece.place(new).read_bytes() != bytes_of(piece.value):
                raise BadInputError(f"{_not(model, base)}: {piece.tensor} holds other values than the delta")
            spots[piece.tensor, piece.row] = None
    return spots


def _check_frozen(
    model: ModelRef,
    base: ModelRef,
    old: Mapping[str, Place],
    new: Mapping[str, Place],
    spots: Mapping[tuple[str, int | None], None],
) -> None:
    """Make sure that everything else is the base's."""
    shared = {name for name, row in spots if row is not None}
    with progress("compare with the base", len(old), "tensors") as advance:
        for name, place in old.items():
            rows: Iterable[int | None] = range(place.shape[0]) if name in shared else [None]
            for row in rows:
                if (name, row) in spots:
                    continue
                if not _equal(_spot(old, name, row), _spot(new, name, row)):
                    where = name if row is None else f"{name}, expert {row},"
                    raise BadInputError(f"{_not(model, base)}: {where} is neither's")
            advance(1)


def _equal(first: Place, second: Place) -> bool:
    with first.file.open("rb") as ours, second.file.open("rb") as theirs:
        ours.seek(first.start)
        theirs.seek(second.start)
        left = first.size
        while left:
            size = min(left, _CHUNK)
            if ours.read(size) != theirs.read(size):
                return False
            left -= size
    return True


def _must_be_alike(
    old: Mapping[str, Place], new: Mapping[str, Place], model: ModelRef, base: ModelRef
) -> None:
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            missing = model if name in old else base
            raise BadInputError(f"{_not(model, base)}: {missing.path} has no tensor {name}")
        was, found = old[name], new[name]
        if (was.dtype, was.shape) != (found.dtype, found.shape):
            raise BadInputError(
                f"{_not(model, base)}: {name} is {found.dtype} {list(found.shape)}, "
                f"in the base {was.dtype} {list(was.shape)}"
            )


def _not(model: ModelRef, base: ModelRef) -> str:
    return f"'{model.path}' is not '{base.name}' with this delta"


def _spot(among: Mapping[str, Place], name: str, row: int | None) -> Place:
    return among[name] if row is None else among[name].row(row)
