"""What a model thought before it answered, told apart from the answer.

A small table of known forms, for raw text that still has its markers. A tokenizer's own response schema knows
better; this is for those that have none, and for files of answers.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

NO_ANSWER = "the answer was truncated within its reasoning"
"""Why an answer that never began is unscored."""


class Split(NamedTuple):
    """One response in two parts.

    Attributes:
        reasoning: what came before the answer; "" where there was none.
        answer: the answer; None where it never began.
    """

    reasoning: str
    answer: str | None


class Form(NamedTuple):
    """The markers around reasoning."""

    opens: str
    closes: str


FORMS = (
    *(
        Form(f"<{name}>", f"</{name}>")
        for name in ("think", "thinking", "thought", "reasoning", "seed:think", "longcat_think")
    ),
    Form("[THINK]", "[/THINK]"),
    # Kimi-VL.
    Form("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    # Solar Open.
    Form("<|think|>", "<|end|><|begin|>assistant<|content|>"),
    # Gemma's channel of thought.
    Form("<|channel>thought", "<channel|>"),
)
# Models may think in several blocks in a row; text made of markers alone must not take forever.
_MOST_BLOCKS = 8
# How far around a marker it is looked for signs that it is only mentioned.
_NEAR = 80

_QUOTES = "`'\"\u2018\u2019\u201c\u201d"
# "<think> is the tag that ..." speaks of the marker.
_SPOKEN_OF = re.compile(
    r"[ \t]*(?:is|are|was|were|and|or|tags?|tokens?|markers?|marks|means|begins|opens|starts)\b"
)
_NAMED = re.compile(r"[ \t]+(?:tags?|tokens?|markers?)\b")
_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)

# What may end a turn and is still there when special tokens are kept.
_ENDS = re.compile(
    r"(?:\s*(?:<\|(?:im_end|eot_id|eom_id|end|return|call|endoftext|end_of_text|user|observation)\|>|</s>|<eos>"
    r"|<seed:eos>|<end_of_turn>|<turn\|>|<\uff5cend\u2581of\u2581sentence\uff5c>|\[eos\]))+\s*\Z"
)

_HEADER = (
    r"(?:<\|start\|>\s?assistant[^<]{0,80})?<\|channel\|>\s?(?P<channel>analysis|commentary|final)\b"
    r"[^<]{0,80}(?:<\|constrain\|>[^<]{0,80})?<\|message\|>"
)
_MARK = re.compile(rf"{_HEADER}|<\|(?:end|call|return)\|>(?=\s*(?:<\|start\|>|<\|channel\|>|\Z))")
_BEGUN_HEADER = re.compile(r"(?:<\|start\|>[^<]{0,80})?(?:<\|channel\|>[^<]{0,80})?(?:<\|?\w*\|?)?")
_ANALYSIS_OPEN = re.compile(r"<\|channel\|>analysis<\|message\|>[^<]*\Z")
# Harmony decoded without its special tokens.
_BARE_ANALYSIS = re.compile(r"analysis(?=[A-Z0-9\"'(<])")
_BARE_FINAL = re.compile(r"assistant(?:commentary\w*)?final(?:json)?(?=\S|\s|\Z)")


def split(response: str, opened: str = "", *, so_far: bool = False) -> Split:
    r"""Split a response into reasoning and answer.

    Args:
        response: what the model wrote, special tokens kept where they mark reasoning.
        opened: what the chat template had already put before it, such as "<think>\n" or the whole generation prompt.
        so_far: more may follow, so that a marker which is only mentioned closes nothing yet.

    Returns:
        Both parts without the markers. Markers that reasoning or answer only mention are text.
    """
    response = response[: len(response) - len(_trailing_ends(response))]
    if "<|channel|>" in opened[-200:] or _is_harmony(response):
        return _harmony(response, opened)
    if bare := _BARE_ANALYSIS.match(response):
        final = _BARE_FINAL.search(response, bare.end())
        if final is None:
            return Split(response[bare.end() :].strip(), None)
        return Split(response[bare.end() : final.start()].strip(), response[final.end() :].strip())
    return _tagged(response, opened, so_far)


def is_left_open(opened: str) -> bool:
    """Say whether what a chat template puts before an answer leaves reasoning open."""
    return _left_open(opened) is not None or _ANALYSIS_OPEN.search(opened) is not None


def mentions_reasoning(template: str) -> bool:
    """Say whether a chat template writes, or looks for, a marker of reasoning."""
    return "<|channel|>" in template or any(
        marker in template for form in FORMS for marker in (form.opens, form.closes)
    )


def may_be_an_opening(text: str) -> bool:
    """Say whether a text begins as reasoning does, or is too short to tell."""
    return any(form.opens.startswith(text) or text.startswith(form.opens) for form in FORMS)


def _trailing_ends(response: str) -> str:
    """Return the tokens that end a turn; the pattern is tried on the tail alone, since it could start anywhere."""
    tail = response[-200:]
    found = _ENDS.search(tail)
    return found[0] if found else ""


def _tagged(response: str, opened: str, so_far: bool) -> Split:
    thoughts: list[str] = []
    at = _start(response, 0)
    form = _left_open(opened)
    if form is not None:
        # Some models repeat the marker that the template has written.
        if response.startswith(form.opens, at):
            at += len(form.opens)
    elif (form := _form_at(response, at)) is not None:
        at += len(form.opens)
        if _SPOKEN_OF.match(response, at):
            form, at = None, 0
    elif _is_begun(response[at:].rstrip()):
        return Split("", None)
    elif (orphan := _orphan(response)) is not None:
        form, at = orphan, 0
    while form is not None:
        close = _close(response, at, form, so_far)
        if close is None:
            if thoughts:
                break
            return Split(_without_begun_close(response[at:], form).strip(), None)
        thoughts.append(response[at:close].strip())
        at = _start(response, close + len(form.closes))
        form = _form_at(response, at) if len(thoughts) < _MOST_BLOCKS else None
        if (
            form is not None
            and form.closes in response[at:]
            and not _SPOKEN_OF.match(response, at + len(form.opens))
        ):
            at += len(form.opens)
        else:
            form = None
    later = _without_later_thoughts(response[at:].strip())
    return Split("\n\n".join(filter(None, [*thoughts, later.reasoning])), later.answer)


def _without_later_thoughts(text: str) -> Split:
    """Split what follows the first thoughts: models may think again, or end a thought twice.

    Only markers on lines of their own count, outside code: a text may speak of markers.
    """
    thoughts: list[str] = []
    for _ in range(_MOST_BLOCKS):
        marks = [(mark, form) for form in FORMS if (mark := _mark_on_a_line(text, form)) is not None]
        if not marks:
            break
        mark, form = min(marks, key=lambda each: each[0].start())
        if form.closes in mark[0]:
            thought, before, after = text[: mark.start()], "", text[mark.end() :]
        else:
            before, rest = text[: mark.start()], text[mark.end() :]
            end = _line_of(form.closes).search(rest)
            thought, after = (rest, "") if end is None else (rest[: end.start()], rest[end.end() :])
        thoughts.append(thought.strip())
        text = "\n\n".join(filter(None, (before.strip(), after.strip())))
    return Split("\n\n".join(filter(None, thoughts)), text)


def _mark_on_a_line(text: str, form: Form) -> re.Match[str] | None:
    """Return the first line that is a marker of a form and nothing else; None where that is in code."""
    both = [_line_of(marker).search(text) for marker in form]
    found = min((each for each in both if each is not None), key=lambda each: each.start(), default=None)
    return None if found is None or len(_FENCE.findall(text[: found.start()])) % 2 else found


@cache
def _line_of(marker: str) -> re.Pattern[str]:
    return re.compile(rf"^[ \t]*{re.escape(marker)}[ \t]*$", re.MULTILINE)


def _start(text: str, at: int) -> int:
    """Return where the next text after spaces begins."""
    return at + len(text[at:]) - len(text[at:].lstrip())


def _form_at(text: str, at: int) -> Form | None:
    return next((form for form in FORMS if text.startswith(form.opens, at)), None)


def _left_open(opened: str) -> Form | None:
    """Return the form that the template opened last and did not close."""
    place, form = max((opened.rfind(form.opens), form) for form in FORMS)
    return form if place >= 0 and form.closes not in opened[place:] else None


def _is_begun(text: str) -> bool:
    """Whether a response ends within its opening marker."""
    return len(text) > 1 and any(form.opens.startswith(text) for form in FORMS)


def _without_begun_close(text: str, form: Form) -> str:
    for length in range(len(form.closes) - 1, 1, -1):
        if text.endswith(form.closes[:length]):
            return text[:-length]
    return text


def _orphan(text: str) -> Form | None:
    """Return the form that a line of its own closes though nothing opened it: whoever kept the answers dropped it."""
    for form in FORMS[:-1]:
        found = _line_of(form.closes).search(text)
        if found is None:
            continue
        before = text[: found.start()]
        if form.opens not in before and len(_FENCE.findall(before)) % 2 == 0:
            return form
    return None


def _close(text: str, start: int, form: Form, so_far: bool) -> int | None:
    """Return where reasoning that begins at `start` is closed; None where it is not.

    A marker that is quoted, named as a tag or the second of a pair on one line is only mentioned, unless no other
    follows. One in the middle of a line gives way to one on a line of its own.
    """
    first = text.find(form.closes, start)
    if first < 0:
        return None
    alone = _line_of(form.closes).search(text, start)
    at = first
    while at >= 0:
        if alone is not None and alone.start() <= at:
            return at
        if not _is_mentioned(text, start, at, form):
            # A sentence that goes on over the marker, with a closing line and no new opening after it.
            between = "" if alone is None else text[at : alone.start()]
            if alone is None or form.opens in between or not _goes_on(text, at, form):
                return at
        at = text.find(form.closes, at + len(form.closes))
    if alone is None:
        return None if so_far else first
    return text.find(form.closes, alone.start())


def _is_mentioned(text: str, start: int, at: int, form: Form) -> bool:
    before, after = text[max(start, at - _NEAR) : at], text[at + len(form.closes) :][:_NEAR]
    if (before[-1:] in _QUOTES and before) or (after[:1] == "`"):
        return True
    line = before.rpartition("\n")[2]
    return form.opens in line or _NAMED.match(after) is not None


def _goes_on(text: str, at: int, form: Form) -> bool:
    before, after = text[max(0, at - 2) : at], text[at + len(form.closes) :][:2]
    return (
        before[-1:] in (" ", "\t")
        and after[:1] in (" ", "\t", ",")
        and (after[1:2].islower() or after[:1] == ",")
    )


def _is_harmony(response: str) -> bool:
    head = response[:400].lstrip()
    return head.startswith("<|channel|>") or re.match(r"<\|start\|>\s?assistant", head) is not None


def _harmony(response: str, opened: str) -> Split:
    """Split the channels of gpt-oss: the final one is the answer, all others are reasoning.

    A message ends at its end token; one of reasoning also at the next header that no quote precedes.
    """
    # A header may have been begun by the template and ended by the model.
    begun = max(opened.rfind("<|start|>"), opened.rfind("<|channel|>"))
    start = opened.rfind("<|start|>", 0, begun + 1)
    text = (opened[start if start >= 0 else begun :] if begun >= 0 else "") + response
    thoughts: list[str] = []
    finals: list[str] = []
    channel: str | None = None
    at = 0
    for mark in _MARK.finditer(text):
        ends = mark["channel"] is None
        if not ends and channel is not None and (channel == "final" or text[mark.start() - 1] in _QUOTES):
            continue
        (finals if channel == "final" else thoughts).append(text[at : mark.start()].strip())
        channel, at = mark["channel"], mark.end()
    rest = text[at:].strip()
    if channel is not None or not _BEGUN_HEADER.fullmatch(rest):
        (finals if channel == "final" else thoughts).append(rest)
    answer = "\n\n".join(filter(None, finals)) if finals else None
    return Split("\n\n".join(filter(None, thoughts)), answer)
