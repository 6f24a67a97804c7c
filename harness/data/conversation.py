"""Conversations: several turns in place of one user's message, the last of them the user's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from harness.base.errors import nearest

ChatRole = Literal["system", "user", "assistant"]
_ROLES: tuple[ChatRole, ...] = get_args(ChatRole)


class Turn(NamedTuple):
    """One message of a conversation.

    Attributes:
        role: who speaks.
        content: the text.
    """

    role: ChatRole
    content: str


Turns = tuple[Turn, ...]
Asked = str | Turns
"""What a model is asked: a user's message, or a conversation that ends with one."""


def asked_in(row: Mapping[str, Any]) -> Asked:
    """Return what the model was asked, from a row that holds `prompt` and, of a conversation, `messages`."""
    messages = row.get("messages")
    return tuple(Turn(each["role"], each["content"]) for each in messages) if messages else row["prompt"]


def as_messages(turns: Iterable[Turn]) -> list[dict[str, str]]:
    """Return turns as chat messages, the form that files and chat templates have."""
    return [turn._asdict() for turn in turns]


def transcript(turns: Sequence[Turn]) -> str:
    """Return a conversation as text, which people and judges read: each turn behind its role, the last one at the end.

    A conversation of a single user's message is that message.
    """
    if len(turns) == 1:
        return turns[0].content
    return "\n\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in turns)


def text_of(asked: Asked) -> str:
    """Return what a model is asked as text: the message, or the conversation's transcript."""
    return asked if isinstance(asked, str) else transcript(asked)


def read_messages(value: object) -> Turns:
    """Return the turns of a cell that holds chat messages, as a list or as its JSON text.

    Raises:
        ValueError: it is none, a role is unknown, a message is empty, or the conversation ends in no user's turn.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("expected a list of messages or its JSON, found other text") from None
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"expected a list of messages, found a {type(value).__name__}")
    return checked([_message(number, each) for number, each in enumerate(value)])


def checked(turns: Sequence[Turn]) -> Turns:
    """Return turns that a model can be asked.

    Raises:
        ValueError: there are none, a system turn is not the first, or the last one is not the user's.
    """
    if not turns:
        raise ValueError("the conversation is empty")
    for number, turn in enumerate(turns[1:], 1):
        if turn.role == "system":
            raise ValueError(f"message {number}: expected a system turn at the beginning alone")
    if turns[-1].role != "user":
        raise ValueError(f"the conversation ends in the turn of '{turns[-1].role}', expected 'user'")
    return tuple(turns)


def _message(number: int, message: object) -> Turn:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise ValueError(f"message {number}: expected role and content, found {_kind(message)}")
    role, content = message["role"], message["content"]
    known = next((each for each in _ROLES if each == role), None)
    if known is None:
        raise ValueError(f"message {number}: unknown role '{role}', {nearest(str(role), _ROLES)}")
    if not isinstance(content, str):
        raise ValueError(f"message {number}: content: expected text, found a {type(content).__name__}")
    if not content.strip():
        raise ValueError(f"message {number}: content is empty")
    return Turn(known, content.strip())


def _kind(message: object) -> str:
    return (
        ", ".join(map(str, message)) or "neither"
        if isinstance(message, Mapping)
        else f"a {type(message).__name__}"
    )
