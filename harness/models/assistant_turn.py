"""An assistant's turn as a chat template writes it: what stands before the answer, around a thought, and after.

The generation prompt ends where the model goes on writing, which need not be where an answer begins: the template may
have opened a thought there, and a final answer may have a channel of its own. So the template is asked to write a
conversation with an answer in it, and what it puts between the generation prompt and that answer is the *lead*.
Training labels and forced starts begin with it, so that neither a refusal nor an opening lands inside a thought.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.base.errors import BadInputError
from harness.data.reasoning import FORMS, Form

if TYPE_CHECKING:
    from harness.models.chat import ChatTemplate

_ASKED, _ANSWERED, _THOUGHT = "harnessprobeofaquestion", "harnessprobeofananswer", "harnessprobeofathought"
# gpt-oss; its final channel follows in a message of its own.
_ANALYSIS = Form("<|channel|>analysis<|message|>", "<|end|>")
_ALL_FORMS = (*FORMS, _ANALYSIS)
# How templates want to be given the thoughts of a turn; the last is Mistral's.
_WAYS_TO_GIVE_A_THOUGHT: tuple[Mapping[str, Any], ...] = (
    {"reasoning_content": _THOUGHT},
    {"reasoning": _THOUGHT},
    {"thinking": _THOUGHT},
    {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": _THOUGHT}]},
            {"type": "text", "text": _ANSWERED},
        ]
    },
)


class _Shown(NamedTuple):
    """What a template writes before and after an answer."""

    before: str
    after: str


class AssistantTurn:
    """What a chat template writes around an answer.

    Args:
        chat: the template, with the arguments that its prompts are rendered with.
    """

    def __init__(self, chat: ChatTemplate) -> None:
        self._chat = chat

    @cached_property
    def lead(self) -> str:
        """The text between the generation prompt and the answer, such as `<|channel|>final<|message|>`; often "".

        A thought that the template leaves open is closed here, empty: as the template closes one in a conversation,
        else in the form in which it was opened.
        """
        begun, shown = self._begun, self._answered
        lead = ""
        if shown is not None and shown.before.startswith(begun):
            lead = shown.before[len(begun) :]
        turn = self._turn(begun + lead)
        opened = _left_open(turn)
        return lead if opened is None else lead + self._closing(opened, turn)

    def lead_with(self, thought: str) -> str:
        """Return the text between the generation prompt and an answer that a thought precedes, as the model thinks it.

        Args:
            thought: plain text.

        Raises:
            BadInputError: the template has closed the thought already, or there is no known form of thoughts.
        """
        before, after = self._around_a_thought
        return f"{before}{thought}{after}"

    def written_after(self, end: int, followed: bool) -> str | None:
        """Return what the template writes after an answer, up to and with a token that ends it.

        Args:
            end: the token.
            followed: in a conversation in which the user speaks again.

        Returns:
            The text; None where it writes no such token there.
        """
        spelling = str(self._chat.tokenizer.convert_ids_to_tokens(end))
        gap, written, _ = self._after(followed).partition(spelling)
        return gap + written if written else None

    def end(self, ends: Sequence[int]) -> int:
        """Return the token by which the model ends an answer: the one that the template writes after it.

        Some templates write it only when the next turn begins, or only at the end of a conversation. Where the
        template writes none of them, it is the tokenizer's own end if that is one of them, else the first.

        Args:
            ends: the tokens that end an answer.
        """
        for followed in (False, True):
            for token in self._chat.markers.encode([self._after(followed)])[0]:
                if token in ends:
                    return token
        own = self._chat.tokenizer.eos_token_id
        return int(own) if own in ends else ends[0]

    def unknown_end(self, ends: Sequence[int]) -> str | None:
        """Return the control token that the template writes after an answer, where none that it writes there is an end.

        A model that learned from the template goes on past it, into a turn of its own making.

        Args:
            ends: the tokens that end an answer.
        """
        written = [self._chat.markers.encode([self._after(followed)])[0] for followed in (False, True)]
        if not {*written[0], *written[1]}.isdisjoint(ends):
            return None
        spelled = {id: token for token, id in self._chat.markers.ids.items()}
        return next((spelled[token] for token in written[0] if token in spelled), None)

    def tail(self, end: int) -> str | None:
        """Return what stands between an answer and its end, with the end; None where the template writes none."""
        return next(
            (tail for followed in (False, True) if (tail := self.written_after(end, followed)) is not None),
            None,
        )

    @cached_property
    def _begun(self) -> str:
        """The generation prompt."""
        return self._chat.transcript([{"role": "user", "content": _ASKED}], begins_answer=True)

    @cached_property
    def _answered(self) -> _Shown | None:
        return self._shown({"role": "assistant", "content": _ANSWERED})

    @cached_property
    def _thought_through(self) -> _Shown | None:
        """What stands around an answer that a thought precedes, where the template shows thoughts."""
        for given in _WAYS_TO_GIVE_A_THOUGHT:
            shown = self._shown({"role": "assistant", "content": _ANSWERED, **given})
            # Lists that are written out as lists are not understood.
            if shown is not None and _THOUGHT in (turn := self._turn(shown.before)) and "'type'" not in turn:
                return shown
        return None

    @cached_property
    def _around_a_thought(self) -> tuple[str, str]:
        begun, shown = self._begun, self._thought_through
        opened = _left_open(self._turn(begun))
        if opened is None and any(form.closes in self._turn(begun) for form in FORMS):
            raise BadInputError(
                "training.refusal_thought: the chat template has closed the thought before the model writes; switch "
                "thinking on, or leave the setting out"
            )
        if shown is not None and shown.before.startswith(begun):
            before, _, after = shown.before[len(begun) :].partition(_THOUGHT)
            return before, after
        if opened is not None:
            return "", self._closing(opened, self._turn(begun))
        form = self._form_of_the_model
        if form is None:
            raise BadInputError(
                "training.refusal_thought: neither the chat template nor the tokenizer has a known form of thoughts; "
                "leave the setting out"
            )
        space = "\n" if form.opens.startswith("<") else ""
        if form.opens in self.lead:  # an empty thought
            before, _, rest = self.lead.partition(form.opens)
            return f"{before}{form.opens}{space}", f"{space}{form.closes}{rest.partition(form.closes)[2]}"
        return f"{form.opens}{space}", _closed(form, space) + self.lead

    @cached_property
    def _form_of_the_model(self) -> Form | None:
        """The form in which a model opens thoughts by itself, by the template's text or the tokenizer's tokens."""
        tokens = self._chat.tokenizer.get_added_vocab()
        return next(
            (form for text in (self._chat.source, tokens) for form in FORMS if form.opens in text), None
        )

    def _closing(self, form: Form, turn: str) -> str:
        """Return what closes the thought that a turn has opened, up to where the answer begins."""
        if self._thought_through is not None:
            close = self._turn(self._thought_through.before).partition(_THOUGHT)[2]
            if form.closes in close:
                return close
        if self._answered is not None:
            shown = self._turn(self._answered.before)
            if shown.rfind(form.closes) > shown.rfind(form.opens):
                return shown[shown.rfind(form.closes) :]
        return _closed(form, turn[turn.rfind(form.opens) + len(form.opens) :])

    def _after(self, followed: bool) -> str:
        """Return what follows an answer, to the end of the conversation or to the user's next message."""
        if not followed:
            return "" if self._answered is None else self._answered.after
        again = {"role": "user", "content": _ASKED}
        shown = self._shown({"role": "assistant", "content": _ANSWERED}, again)
        return "" if shown is None else shown.after.partition(_ASKED)[0]

    def _shown(self, *turns: Mapping[str, Any]) -> _Shown | None:
        """Return what stands around the answer in a conversation; None where the template does not know such ones."""
        try:
            text = self._chat.transcript([{"role": "user", "content": _ASKED}, *turns], begins_answer=False)
        except BadInputError:
            # Nothing is asked this way: such a conversation is only looked at.
            return None
        before, answer, after = text.partition(_ANSWERED)
        return _Shown(before, after) if answer else None

    @staticmethod
    def _turn(text: str) -> str:
        """Return what stands behind the question: a template's own system message may speak of thoughts."""
        return text.partition(_ASKED)[2]


def _left_open(turn: str) -> Form | None:
    """Return the form of the thought that a turn has opened and not closed."""
    place, form = max((turn.rfind(form.opens), form) for form in _ALL_FORMS)
    return form if place >= 0 and form.closes not in turn[place:] else None


def _closed(form: Form, space: str) -> str:
    """Return the end of a thought; after tags on lines of their own models leave a line free."""
    return f"{space}{form.closes}" + ("\n\n" if space and form.closes.startswith("</") else "")
