"""An answer as it is kept in a file: one row of responses/TASK.jsonl."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.data.conversation import Asked, Turns, as_messages


def answer_id(prompt: str, number: int | None) -> str:
    """Return the id of an answer: the prompt's, with # and the number behind it where answers are sampled."""
    return prompt if number is None else f"{prompt}#{number}"


def prompt_id(answer: str, number: int | None) -> str:
    """Return the id of the prompt behind an answer's id and number; a prompt's own id may hold any #."""
    return answer if number is None else answer.removesuffix(f"#{number}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered to one prompt.

    Attributes:
        id: of the prompt; of one sampled answer among several, with # and its number behind it.
        prompt: its text; of a conversation the transcript.
        response: the answer's text; "" where it never began.
        finish_reason: "length" where the token limit ended it.
        prompt_tokens: length of the prompt as the model saw it; None where it was not recorded.
        generated_tokens: length of reasoning and answer; None where it was not recorded.
        tokens: the answer's token ids, its end token included; None where they were not kept.
        reasoning: what the model wrote before the answer; None where there was none.
        reasoning_tokens: how many generated tokens come before the answer's first; None where there was none.
        number: which of the prompt's sampled answers it is, from 1; None for a greedy answer.
        messages: the turns of a conversation; empty where the user's message is all.
    """

    id: str
    prompt: str
    response: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    tokens: tuple[int, ...] | None = None
    reasoning: str | None = None
    reasoning_tokens: int | None = None
    number: int | None = None
    messages: Turns = ()

    @property
    def asked(self) -> Asked:
        """What the model was asked."""
        return self.messages or self.prompt

    @property
    def written(self) -> str:
        """All that the model wrote: its reasoning, where there was any, and the answer."""
        return f"{self.reasoning}\n{self.response}" if self.reasoning else self.response

    @property
    def never_began(self) -> bool:
        """Whether it ended within its reasoning."""
        return bool(self.reasoning) and not self.response

    @property
    def prompt_id(self) -> str:
        """The id of the prompt."""
        return prompt_id(self.id, self.number)

    @property
    def is_truncated(self) -> bool:
        """Whether the token limit ended it."""
        return self.finish_reason == "length"

    def row(self, with_tokens: bool = False) -> dict[str, Any]:
        """Return it as a JSON object, its token ids only if asked for, its reasoning where there was one."""
        row = asdict(self) | {"messages": as_messages(self.messages)}
        if not self.messages:
            del row["messages"]
        if self.reasoning is None:
            del row["reasoning"], row["reasoning_tokens"]
        if self.number is None:
            del row["number"]
        tokens = row.pop("tokens")
        return row | {"tokens": list(tokens or ())} if with_tokens else row
