"""Turning the loaded model into a variant, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.errors import HarnessError

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.experts.select import ExpertSelection
    from harness.interventions.spec import VariantSpec
    from harness.models.moe import MoEModel


@dataclass(frozen=True)
class Variant:
    """One row of the leaderboard.

    Attributes:
        name: unique in the run; further random draws are called random_experts_2, random_experts_3, ...
        spec: how it is made.
        draw: which random draw, counted from 0.
    """

    name: str
    spec: VariantSpec
    draw: int = 0


@contextmanager
def active(
    variant: Variant, moe: MoEModel, selection: ExpertSelection | None, delta: ExpertDelta | None
) -> Iterator[None]:
    """Make the model behave as the variant inside the block; afterwards it is the base again, exactly.

    A system prompt is no state of the model: the engine is given `variant.spec.system_prompt`.
    """
    kind = variant.spec.intervention
    if kind == "steer":
        from harness.interventions.steer import steered

        if selection is None:
            raise HarnessError(f"variant '{variant.name}' has no selection to steer by")
        with steered(moe, selection):
            yield
    elif kind == "train_experts":
        from harness.checkpoints.delta import applied

        if delta is None:
            raise HarnessError(f"variant '{variant.name}' was not trained")
        with applied(moe, delta):
            yield
    else:
        yield
