"""A system prompt asks the model to decline; nothing of the model changes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from pydantic import Field

from harness.interventions.base import Intervention, Prepared, Served

if TYPE_CHECKING:
    from harness.models.moe import MoEModel


class SystemPrompt(Intervention):
    """The base model under a system prompt."""

    system_prompt: str = Field(min_length=1)
    """The text."""

    def system_message(self) -> str:
        """Return the text."""
        return self.system_prompt

    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Leave the model as it is: the engine is given the text."""
        return nullcontext()

    def served(self, made: Prepared) -> Served:
        """Serve the base model: the engine is given the text."""
        return Served()
