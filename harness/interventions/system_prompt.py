"""A system prompt asks the model to decline; nothing of the model changes."""

from __future__ import annotations

from pydantic import Field

from harness.interventions.none import NoIntervention


class SystemPrompt(NoIntervention):
    """The base model under a system prompt, which the engine is given."""

    system_prompt: str = Field(min_length=1)
    """The text."""

    def system_message(self) -> str:
        """Return the text."""
        return self.system_prompt
