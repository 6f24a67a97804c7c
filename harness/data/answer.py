"""An answer as it is kept in a file: one row of responses/TASK.jsonl."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered to one prompt.

    Attributes:
        id: of the prompt.
        prompt: its text.
        response: the answer's text.
        finish_reason: "length" where the token limit ended it.
        prompt_tokens: length of the prompt as the model saw it; None where it was not recorded.
        generated_tokens: length of the answer; None where it was not recorded.
        tokens: the answer's token ids, its end token included; None where they were not kept.
    """

    id: str
    prompt: str
    response: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    tokens: tuple[int, ...] | None = None

    @property
    def is_truncated(self) -> bool:
        """Whether the token limit ended it."""
        return self.finish_reason == "length"

    def row(self, with_tokens: bool = False) -> dict[str, Any]:
        """Return it as a JSON object, its token ids only if asked for."""
        row = asdict(self)
        tokens = row.pop("tokens")
        return row | {"tokens": list(tokens or ())} if with_tokens else row
