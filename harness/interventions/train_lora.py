"""LoRA on attention and on all experts, trained by PEFT with the data and steps of the experts' training.

What people would do instead of choosing experts.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from harness.base.errors import BadInputError, HarnessError
from harness.interventions.base import Intervention, Lora, Prepared

if TYPE_CHECKING:
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel


class TrainLora(Intervention):
    """The base model with an adapter that was trained in this run."""

    needs: ClassVar[Literal["nothing", "prompts", "experts", "training"]] = "training"

    rank: int = Field(8, ge=1)
    """Of each factor."""
    alpha: float = Field(16.0, gt=0)
    """An update counts alpha / rank times."""

    @property
    def adapter(self) -> Lora:
        """The adapter's size."""
        return Lora(self.rank, self.alpha)

    def check(self, ref: ModelRef, outline: MoEModel) -> None:
        """Refuse a machine without PEFT, and a model whose layers are not found."""
        from harness.checkpoints.adapter import require_peft
        from harness.training.adapter_bank import targets

        require_peft()
        try:
            targets(outline)
        except BadInputError as error:
            raise BadInputError(f"{self.name}: {error}") from None

    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Put the trained adapter into the model inside the block."""
        from harness.checkpoints.adapter import adapted

        if made.trained_in is None:
            raise HarnessError(f"variant '{made.name}' was not trained")
        return adapted(moe.model, made.trained_in)
