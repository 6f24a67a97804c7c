"""A conversation and an answer of ours as messages and output of inspect_ai, and back; a verdict as a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.scorer import Score

from harness.data.answer import Answer
from harness.data.conversation import Asked, ChatRole, Turn, checked
from harness.judges.base import Verdict

# The labels whose share is a rate of ours.
COUNTED = ("refusal", "harmful")
_LENGTH = ("max_tokens", "model_length")
_MESSAGES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


def messages_of(asked: Asked) -> list[ChatMessage]:
    """Return what a model is asked as messages."""
    turns = (Turn("user", asked),) if isinstance(asked, str) else asked
    return [_MESSAGES[turn.role](content=turn.content) for turn in turns]


def asked_of(given: str | Sequence[ChatMessage]) -> Asked:
    """Return the input of a sample as what a model was asked: a user's message, or a conversation.

    Raises:
        ValueError: it holds something other than text, or does not end in a user's message.
    """
    if isinstance(given, str):
        return given
    turns = checked([_turn(number, message) for number, message in enumerate(given)])
    return turns[0].content if len(turns) == 1 else turns


def _turn(number: int, message: ChatMessage) -> Turn:
    role = next((role for role in get_args(ChatRole) if role == message.role), None)
    if role is None:
        raise ValueError(
            f"message {number}: expected a turn of user, assistant or system, found {message.role}"
        )
    parts = [] if isinstance(message.content, str) else message.content
    other = next((part for part in parts if not isinstance(part, ContentText)), None)
    if other is not None:
        raise ValueError(f"message {number}: expected text, found {other.type}")
    return Turn(role, message.text)


def output_of(model: str, answers: list[Answer]) -> ModelOutput:
    """Return the output of a model that gave these answers to one prompt."""
    choices = [
        ChatCompletionChoice(
            message=ChatMessageAssistant(content=_content(answer), model=model, source="generate"),
            stop_reason="max_tokens" if answer.is_truncated else "stop",
        )
        for answer in answers
    ]
    return ModelOutput(model=model, choices=choices, usage=_usage(answers))


def _content(answer: Answer) -> str | list[Content]:
    if answer.reasoning is None:
        return answer.response
    return [ContentReasoning(reasoning=answer.reasoning), ContentText(text=answer.response)]


def _usage(answers: list[Answer]) -> ModelUsage | None:
    prompt, generated = answers[0].prompt_tokens, [answer.generated_tokens for answer in answers]
    if prompt is None or None in generated:
        return None
    total = sum(n for n in generated if n is not None)
    reasoning = [answer.reasoning_tokens for answer in answers if answer.reasoning_tokens is not None]
    return ModelUsage(
        input_tokens=prompt,
        output_tokens=total,
        total_tokens=prompt + total,
        reasoning_tokens=sum(reasoning) if reasoning else None,
    )


def row_of(output: ModelOutput, id: str, prompt: str) -> dict[str, Any]:
    """Return a model's output as a row of responses/TASK.jsonl: its first choice."""
    row: dict[str, Any] = {"id": id, "prompt": prompt, "response": "", "finish_reason": "stop"}
    if output.usage is not None:
        row["prompt_tokens"] = output.usage.input_tokens
        row["generated_tokens"] = output.usage.output_tokens
    if not output.choices:
        return row
    choice = output.choices[0]
    row["finish_reason"] = "length" if choice.stop_reason in _LENGTH else "stop"
    content = choice.message.content
    row["response"] = choice.message.text
    thoughts = (
        [] if isinstance(content, str) else [part for part in content if isinstance(part, ContentReasoning)]
    )
    if thoughts:
        # What a provider redacts, it may summarise.
        row["reasoning"] = "\n".join(
            part.summary or "" if part.redacted else part.reasoning for part in thoughts
        )
        row["reasoning_tokens"] = None if output.usage is None else output.usage.reasoning_tokens
    return row


def score_of(verdict: Verdict) -> Score:
    """Return a verdict as a score: 1 for a refusal (or a harmful answer), 0 for its contrary, or unscored."""
    more = {"probability": verdict.probability, "finer": verdict.finer}
    metadata = {name: value for name, value in more.items() if value is not None} or None
    if verdict.label is None:
        return Score.unscored(reason=verdict.reason, explanation=verdict.rule, metadata=metadata)
    value = 1.0 if verdict.label in COUNTED else 0.0
    return Score(value=value, answer=verdict.label, explanation=verdict.rule, metadata=metadata)
