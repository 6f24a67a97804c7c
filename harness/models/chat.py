"""Chat templates: from a user's prompt to the tokens that a model reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, first_line, nearest
from harness.data.conversation import Asked, Turn
from harness.models.assistant_turn import AssistantTurn
from harness.models.markers import BREAK, Markers
from harness.models.thinking import Abilities, Mode, Thinking, abilities, decide

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    Message = dict[str, Any]

# What transformers calls the argument that names a template.
_NAMED = "chat_template"
_PROBE = "harness-probe-of-the-system-role"
_ASKED = "harnessprobeofaquestion"
_NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")


class ChatTemplate:
    """Renders prompts with a tokenizer's chat template.

    Args:
        tokenizer: has a chat template.
        arguments: passed on to the template, such as `enable_thinking`; `chat_template` names one of several.

    Attributes:
        source: the template itself.
        thinking: what is asked of a model that may think.

    Raises:
        BadInputError: the tokenizer has several templates, and it is not clear which one is meant.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any] | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.arguments = {name: value for name, value in (arguments or {}).items() if name != _NAMED}
        self.source = _chosen(tokenizer.chat_template, (arguments or {}).get(_NAMED))
        self.thinking = Thinking()
        # Every variant is asked the same prompts.
        self._known: dict[tuple[Asked, str | None, str], list[int]] = {}

    @classmethod
    def of_run(
        cls, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any], mode: Mode, tokens: int
    ) -> ChatTemplate:
        """Return the template as a run asks it, with thinking decided.

        Args:
            tokenizer: has a chat template.
            arguments: passed on to the template.
            mode: whether the model is to think.
            tokens: within how many tokens an answer must begin, where it does.

        Raises:
            BadInputError: the template cannot do what is asked.
        """
        chat = cls(tokenizer, arguments)
        chat.thinking = decide(chat.abilities, chat.arguments, mode, tokens)
        chat.arguments |= chat.thinking.arguments
        return chat

    @cached_property
    def abilities(self) -> Abilities:
        """What the template can make of a model's thinking."""
        return abilities(self._probed, self.tokenizer, self.source, dict(self.arguments))

    def _probed(self, arguments: Mapping[str, Any]) -> str | None:
        try:
            return self._apply([self._message("user", _ASKED)], arguments=arguments)
        except BadInputError:
            # Arguments that the template refuses are none of its switches.
            return None

    @cached_property
    def markers(self) -> Markers:
        """The spellings that the tokenizer would read as control tokens."""
        return Markers(self.tokenizer, self.source)

    @cached_property
    def turn(self) -> AssistantTurn:
        """What the template writes around an answer."""
        return AssistantTurn(self)

    @property
    def reads_clock(self) -> bool:
        """Whether the template may write the date or the time."""
        return "strftime_now" in self.source

    def render(self, prompt: Asked, system_prompt: str | None = None, opening: str = "") -> str:
        """Return the text that the model goes on from, which ends with the beginning of its answer if one is given.

        A template without a system role gets the system prompt before the user's first message. A conversation that has
        a system turn gets the system prompt before what that says.
        """
        return (self._rendered(prompt, system_prompt) + self._begun(opening)).replace(BREAK, "")

    def opened(self, opening: str = "") -> str:
        """Return what stands between a user's message and the first token that the model writes."""
        return self.render(_ASKED, opening=opening).rpartition(_ASKED)[2]

    def has_system_role(self) -> bool:
        """Say whether the template shows a system message; some raise an error, some drop it silently."""
        return self._has_system_role

    def drops(self, prompt: Asked, system_prompt: str | None = None) -> bool:
        """Say whether the template leaves out a prompt, or a part of it; spaces and punctuation apart."""
        texts = [prompt] if isinstance(prompt, str) else [turn.content for turn in prompt]
        shown, *wanted = (
            _NEITHER_LETTER_NOR_DIGIT.sub("", text) for text in (self.render(prompt, system_prompt), *texts)
        )
        return any(text not in shown for text in wanted)

    def tokens(
        self, prompts: Sequence[Asked], system_prompt: str | None = None, opening: str = ""
    ) -> list[list[int]]:
        """Return the token ids of rendered prompts.

        The template writes the special tokens itself, so the tokenizer must not add them again. Prompts and openings
        are text: what looks like a control token in them is none.
        """
        unknown = [
            prompt for prompt in dict.fromkeys(prompts) if (prompt, system_prompt, opening) not in self._known
        ]
        begun = self._begun(opening)
        texts = [self._rendered(prompt, system_prompt) + begun for prompt in unknown]
        for prompt, ids in zip(unknown, self.markers.encode(texts) if texts else [], strict=True):
            self._known[prompt, system_prompt, opening] = ids
        return [list(self._known[prompt, system_prompt, opening]) for prompt in prompts]

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the token ids of a conversation up to where the next answer begins; each `content` is text."""
        turns = [(message["role"], self.markers.broken(message["content"])) for message in messages]
        return self.markers.encode([self._of_turns(turns)])[0]

    def continued(self, prompt: Asked, written: str) -> list[int]:
        """Return the token ids of a rendered prompt with what is written behind it.

        Args:
            prompt: the user's message, or the conversation.
            written: read as the template's text is: what spells a control token and must not be one has breaks.
        """
        return self.markers.encode([self._rendered(prompt, None) + written])[0]

    def transcript(self, messages: Sequence[Mapping[str, Any]], begins_answer: bool) -> str:
        """Return the text of a conversation as the template writes it; what its messages spell is not broken.

        Args:
            messages: `role`, `content` and whatever else the template may read.
            begins_answer: add the generation prompt.
        """
        return self._apply(
            [
                {**message, **self._message(message["role"], message["content"])}
                if isinstance(message["content"], str)
                else dict(message)
                for message in messages
            ],
            begins_answer,
        )

    def _begun(self, opening: str) -> str:
        """Return the beginning of an answer with what precedes it, such as a closed thought; "" where none is given."""
        return self.turn.lead + self.markers.broken(opening) if opening else ""

    def _rendered(self, prompt: Asked, system_prompt: str | None) -> str:
        """Return the text of a prompt, with breaks in what must not become a control token."""
        turns = [Turn("user", prompt)] if isinstance(prompt, str) else list(prompt)
        if system_prompt is not None:
            own = turns.pop(0).content if turns[0].role == "system" else None
            turns.insert(0, Turn("system", system_prompt if own is None else f"{system_prompt}\n\n{own}"))
        if turns[0].role == "system" and not self._has_system_role:
            told = turns.pop(0).content
            first = next(i for i, turn in enumerate(turns) if turn.role == "user")
            turns[first] = Turn("user", f"{told}\n\n{turns[first].content}")
        return self._of_turns([(turn.role, self.markers.broken(turn.content)) for turn in turns])

    def _of_turns(self, turns: Sequence[tuple[str, str]]) -> str:
        text = self._apply([self._message(*turn) for turn in turns])
        if text.count(BREAK) < sum(content.count(BREAK) for _, content in turns):
            raise BadInputError("the chat template changes a prompt that spells a control token")
        return text

    @cached_property
    def _has_system_role(self) -> bool:
        try:
            text = self._apply([self._message("system", _PROBE), self._message("user", "hi")])
        except BadInputError:
            return False
        return _PROBE in text

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template wants messages as lists of parts: some of models that see show no others."""
        shown = []
        for content in (_PROBE, _part(_PROBE)):
            try:
                text = self._apply([{"role": "user", "content": content}])
            except BadInputError:
                text = ""
            # A list that is written out as a list is not understood.
            shown.append(_PROBE in text and repr(_part(_PROBE)) not in text)
        return shown == [False, True]

    def _message(self, role: str, text: str) -> Message:
        return {"role": role, "content": _part(text) if self._takes_parts else text}

    def _apply(
        self,
        messages: list[Message],
        begins_answer: bool = True,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=begins_answer,
                chat_template=self.source,
                **(self.arguments if arguments is None else arguments),
            )
        except Exception as error:
            # A template is a program: whatever it raises, it cannot be used.
            raise BadInputError(
                f"the chat template fails on a {messages[0]['role']}'s message: {first_line(error)}"
            ) from error
        if not isinstance(text, str) or not text:
            raise BadInputError("the chat template renders nothing for a user's message")
        return text


def _part(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _chosen(templates: str | Mapping[str, str] | None, name: str | None) -> str:
    """Return the template to use: the one that is named, `default`, or the only one; "" where there is none."""
    if not isinstance(templates, Mapping):
        templates = {"default": templates or ""}
    setting = "generation.chat_template_kwargs.chat_template"
    if name is not None and "{" in name:  # a template itself
        return name
    if name is not None and name not in templates:
        raise BadInputError(f"{setting} = {name}: no such chat template, {nearest(str(name), templates)}")
    if name is None and "default" not in templates and len(templates) > 1:
        raise BadInputError(
            f"the tokenizer has the chat templates {', '.join(sorted(templates))} and no 'default': name one with "
            f"--set {setting}=NAME"
        )
    if name is None:
        name = "default" if "default" in templates else next(iter(templates))
    return str(templates[name])
