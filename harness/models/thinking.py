"""What a chat template can make of a model's thinking, and what a run asks of it.

Found out by rendering with and without, never from a list of models: a switch is an argument whose two values give two
texts, of which the one for "off" leaves no reasoning open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness.base.errors import BadInputError
from harness.data.reasoning import is_left_open, mentions_reasoning

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Mode = Literal["auto", "off", "on"]
State = Literal["none", "off", "on", "always"]
Render = Callable[[Mapping[str, Any]], str | None]
"""From arguments to the text before an answer; None where the template fails on them."""

EFFORT = "reasoning_effort"
_LEAST, _MOST = "low", "high"
_UNSET: Any = None


class Switch(NamedTuple):
    """An argument of chat templates that switches thinking; a value of None leaves it out."""

    name: str
    off: Any
    on: Any


# What published templates call it.
SWITCHES = (
    Switch("enable_thinking", False, True),
    Switch("thinking", False, True),
    Switch("reasoning", False, True),
    Switch("thinking_mode", "chat", "thinking"),
    Switch("thinking_budget", 0, _UNSET),
    Switch(EFFORT, "none", _UNSET),
)


class Abilities(NamedTuple):
    """What a chat template can.

    Attributes:
        switch: how thinking is switched; None where it cannot be.
        effort: whether `reasoning_effort` changes what the model reads.
        thinks: whether the template knows of reasoning at all.
        has_marks: whether the vocabulary has marks of reasoning. Models that never think may have them from their
            relatives, so they say only that thinking can be asked for.
    """

    switch: Switch | None
    effort: bool
    thinks: bool
    has_marks: bool = False

    def in_words(self) -> str:
        """Say it in one line."""
        effort = f"; {EFFORT} sets how much" if self.effort else ""
        if self.switch is not None:
            return f"can be switched off ({_words({self.switch.name: self.switch.off})}){effort}"
        if self.thinks:
            return f"cannot be switched off{effort}"
        marked = (
            "; the vocabulary has marks of it, `--thinking on` gives it a budget" if self.has_marks else ""
        )
        return f"none that the chat template knows of{marked}"


class Thinking(NamedTuple):
    """What a run asks of a model that may think.

    Attributes:
        state: off, on, always (it cannot be switched off), or none where the template knows of no thinking.
        arguments: what the chat template is given for it.
        tokens: within how many tokens an answer must begin, apart from its own; None for no such limit.
    """

    state: State = "none"
    arguments: Mapping[str, Any] = MappingProxyType({})
    tokens: int | None = None

    def in_words(self) -> str | None:
        """Say it in one line; None where there is nothing to say."""
        given = f" ({_words(self.arguments)})" if self.arguments else ""
        if self.state == "none":
            return None
        if self.state == "off":
            return f"switched off{given}"
        state = "switched on" if self.state == "on" else "cannot be switched off"
        return f"{state}{given}: up to {self.tokens:,} tokens of reasoning before each answer"

    def record(self) -> dict[str, Any]:
        """Return it as run.json keeps it."""
        return {"state": self.state, "arguments": dict(self.arguments), "reasoning_tokens": self.tokens}


def abilities(
    render: Render, tokenizer: PreTrainedTokenizerBase, source: str, given: Mapping[str, Any]
) -> Abilities:
    """Return what a chat template can.

    Args:
        render: applies it.
        tokenizer: may have a response schema.
        source: the template itself.
        given: arguments that are passed on to it anyway.
    """
    switch = next((each for each in SWITCHES if _switches(each, render, source, given)), None)
    low, high = (render({**given, EFFORT: effort}) for effort in (_LEAST, _MOST))
    schema = getattr(tokenizer, "response_template", None) or {}
    thinks = (
        switch is not None
        or mentions_reasoning(source)
        or is_left_open(render(given) or "")
        or any(is_reasoning(name) for name in schema.get("fields", {}))
    )
    tokens = tokenizer.added_tokens_decoder.values()
    return Abilities(
        switch,
        thinks and low is not None and high is not None and low != high,
        thinks,
        any(mentions_reasoning(token.content) for token in tokens),
    )


def is_reasoning(field: str) -> bool:
    """Say whether a field of a response schema holds reasoning, by its name."""
    return field in ("reasoning_content", "reasoning", "thinking", "thoughts")


def _switches(switch: Switch, render: Render, source: str, given: Mapping[str, Any]) -> bool:
    # gpt-oss writes any word as the effort into the system message, and thinks all the same.
    if switch.name == EFFORT and not any(f"{mark}{switch.off}{mark}" in source for mark in "'\""):
        return False
    rest = {name: value for name, value in given.items() if name != switch.name}
    off = render({**rest, switch.name: switch.off})
    on = render(rest if switch.on is _UNSET else {**rest, switch.name: switch.on})
    return off is not None and on is not None and off != on and not is_left_open(off)


def decide(can: Abilities, given: Mapping[str, Any], mode: Mode, tokens: int) -> Thinking:
    """Return what a run asks of a model.

    Args:
        can: what its template can.
        given: the arguments in the settings, which win where nothing else is asked for.
        mode: auto switches thinking off where that is possible.
        tokens: within how many tokens an answer must begin, where the model thinks.

    Raises:
        BadInputError: the template cannot do it, the settings contradict one another, or no tokens are left to think.
    """
    if can.switch is not None:
        thinking = _switched(can.switch, given, mode)
    elif not can.thinks:
        if mode != "on":
            return Thinking()
        if not can.has_marks:
            raise BadInputError("thinking = on: the chat template knows of no thinking; expected auto or off")
        thinking = Thinking("on")
    elif mode == "off":
        raise BadInputError(
            "thinking = off: the chat template has no switch for it; expected auto or on, with --reasoning-tokens"
        )
    else:
        is_least = can.effort and mode == "auto" and EFFORT not in given
        thinking = Thinking("always", {EFFORT: _LEAST} if is_least else {})
    if thinking.state == "off":
        return thinking
    if tokens == 0:
        why = "cannot be switched off" if thinking.state == "always" else "is on"
        raise BadInputError(f"generation.reasoning_tokens = 0: thinking {why}; expected at least 1 token")
    return thinking._replace(tokens=tokens)


def _switched(switch: Switch, given: Mapping[str, Any], mode: Mode) -> Thinking:
    if switch.name in given:
        state: State = "off" if given[switch.name] == switch.off else "on"
        if mode not in ("auto", state):
            raise BadInputError(
                f"thinking = {mode}: generation.chat_template_kwargs has {_words({switch.name: given[switch.name]})}; "
                "name one of the two"
            )
        return Thinking(state)
    if mode == "on":
        return Thinking("on", {} if switch.on is _UNSET else {switch.name: switch.on})
    return Thinking("off", {switch.name: switch.off})


def _words(arguments: Mapping[str, Any]) -> str:
    values = {name: str(value).lower() for name, value in arguments.items()}
    return ", ".join(f"{name} = {value}" for name, value in values.items())
