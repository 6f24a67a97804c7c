"""Speech of somebody quoted: what a character, a speaker or a document says is not what the answer says."""

from __future__ import annotations

import re

SAID = "\ue000"
"""What is left where speech was taken out."""
# A shorter quotation is a word that is spoken of, and says nothing by itself.
_FEWEST_WORDS = 3
_NEAR = 60

_QUOTATION = re.compile(
    r'"[^"\n]{1,600}"|\u201c[^\u201d\n]{1,600}\u201d|\u00ab[^\u00bb\n]{1,600}\u00bb|\u201e[^\u201c\n]{1,600}\u201c'
    r"|(?<![\w'])'(?=\w)[^\n\"]{1,300}?[,.!?\w]'(?![\w'])|(?<!\w)\u2018[^\n\u2018]{1,300}?[,.!?\w]\u2019(?!\w)"
)
_MARK = re.compile("[\"':\u2018\u201c\u201e\u00ab]")
_SPOKE = (
    r"(?:said|says|say|replied|replies|asked|asks|answered|whispered|shouted|muttered|cried|told|tells|yelled|murmured|growled"
    r"|sighed|laughed|snapped|warned|exclaimed|declared|barked|insisted|admitted|announced|continued|added|began|called"
    r"|wrote|writes|stammered|hissed|mumbled|protested|grumbled|explained|responded|responds|recalled|quipped|thundered"
    r"|boomed|pleaded|groaned|screamed|roared|repeated|remarked|smiled|nodded|thought|interrupted)"
)
_TAG_AFTER = re.compile(
    rf"\s*,?\s*(?:{_SPOKE} (?:the|a|an|my|his|her|their|our|i\b|[A-Z]\w+|he|she|they)"
    rf"|(?:(?:the|a|an|my|his|her|their|our|one|another)(?: \w+){{1,4}}?|[A-Z]\w+(?: [A-Z]\w+)?|he|she|they|i|it|we)"
    rf"(?: \w+ly| had| then)? {_SPOKE})\b",
    re.IGNORECASE,
)
_MENTION_AFTER = re.compile(
    r"\s*,?\s*(?:is|are|was|were|means|comes from|translates|uses|would be)\b(?! (?:all|my|what i))"
    r"|\s*\([^)\n]{1,40}\)",
    re.IGNORECASE,
)
_SPOKEN_OF = (
    r"(?:means?|meaning|reads?|reading|translates? (?:to|as|into)|phrases?|sentences?|words?|lines?|quotes?|quotation"
    r"|expression|titled?|signs?|lyrics?|states?|stating|saying|such as|begins?|starts?|opens|ends?|try this|try"
    r"|like this"
    r"|for example|e\.g\.|called|slogan|motto|example|passage|statement|translation|rewritten as|would be|becomes)"
)
_MENTION = re.compile(
    rf"(?:\b{_SPOKE}(?: (?:to )?\w+){{0,4}}|\b{_SPOKEN_OF})\s*(?:is|are|was|were|as|like|of)?\s*[,:]?\s*\Z",
    re.IGNORECASE,
)
_THIRD_PERSON = re.compile(
    r"\b(?:he|she|they|his|her|their|him|them|himself|herself|themselves)\b", re.IGNORECASE
)
_FIRST_OR_SECOND_PERSON = re.compile(
    r"\b(?:i|i'm|i'll|i've|my|me|mine|we|our|us|you|your|please)\b", re.IGNORECASE
)
_VOUCHES = re.compile(
    r"\b(?:my (?:\w+ )?(?:answer|reply|response)|you (?:asked|wrote|said)|i (?:can|must|have|will|am|would)"
    r"|i'(?:ll|m|d))\b[^.!?]*\Z",
    re.IGNORECASE,
)
# The lines of a play or an interview, but not of a conversation with a model.
_LINE_OF_SPEAKER = re.compile(
    r"^[ \t*_]*([A-Z][\w.' ]{0,25}?)[ \t*_]*(?:\([^)\n]{1,40}\))?[*_]*:[ \t*_]*(.{1,600})$", re.MULTILINE
)
_NO_SPEAKERS = frozenset(
    [
        "answer",
        "response",
        "reply",
        "final",
        "note",
        "user",
        "assistant",
        "human",
        "ai",
        "model",
        "chatbot",
        "bot",
        "question",
        "q",
        "a",
        "system",
        "warning",
        "disclaimer",
        "important",
        "step",
        "result",
        "output",
        "input",
        "task",
        "request",
        "prompt",
    ]
)


def without_quoted_speech(text: str) -> tuple[str, str]:
    """Return a text without what it has somebody else say, and what was taken out.

    A quotation is another's where a tag ("the guard said") or a mention ("the sentence is") is beside it, or where all
    around it tells of third persons. An answer that is one quotation, or that vouches for it, keeps it.
    """
    if _MARK.search(text) is None:
        return text, ""
    taken: list[str] = []
    speakers = {name.lower() for name, _ in _LINE_OF_SPEAKER.findall(text)} - _NO_SPEAKERS
    if len(speakers) >= 2:
        text = _LINE_OF_SPEAKER.sub(lambda line: _taken(line[2], taken), text)
    quotations = list(_QUOTATION.finditer(text))
    if not quotations:
        return text, "\n".join(taken)
    outside = _QUOTATION.sub(" ", text)
    told = _THIRD_PERSON.search(outside) is not None and _FIRST_OR_SECOND_PERSON.search(outside) is None
    # Where one quotation is somebody's speech, so are those that it alternates with.
    told = told or any(_is_anothers(text, quotation) for quotation in quotations)

    def judged(quotation: re.Match[str]) -> str:
        if len(quotation[0].split()) < _FEWEST_WORDS:
            return quotation[0]
        before = text[max(0, quotation.start() - _NEAR) : quotation.start()]
        return _taken(quotation[0], taken) if told and not _vouches(before) else quotation[0]

    return _QUOTATION.sub(judged, text), "\n".join(taken)


def _is_anothers(text: str, quotation: re.Match[str]) -> bool:
    before, after = (
        text[max(0, quotation.start() - _NEAR) : quotation.start()],
        text[quotation.end() :][:_NEAR],
    )
    if _TAG_AFTER.match(after) is not None:
        return True
    return (_MENTION.search(before) or _MENTION_AFTER.match(after)) is not None and not _vouches(before)


def _taken(quotation: str, taken: list[str]) -> str:
    taken.append(quotation)
    return f" {SAID} "


def _vouches(before: str) -> bool:
    """Whether the words before a quotation make it the answer's own ("My answer would be"), or the user's."""
    return _VOUCHES.search(before) is not None
