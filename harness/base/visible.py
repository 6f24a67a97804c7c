"""Text by others, such as data and models, as a terminal or a page may show it."""

from __future__ import annotations

import unicodedata

# Characters that reorder or hide the text beside them.
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Joiners that emoji and several scripts need to be read at all.
_NEEDED = frozenset("\u200c\u200d")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with control, bidirectional and other invisible characters written out as ⟨U+202E⟩.

    Answers are written by a model and may hold terminal escapes or marks that reorder a line.

    Args:
        text: what to show.
        lines: keep line ends and tabs.

    Examples:
        >>> visible("a\x1b[31m")
        'a⟨U+001B⟩[31m'
    """
    if text.isascii() and text.isprintable():
        return text
    kept = _NEEDED | {"\n", "\t"} if lines else _NEEDED
    if lines:
        text = text.replace("\r\n", "\n")
    return "".join(
        f"⟨U+{ord(character):04X}⟩"
        if unicodedata.category(character) in _HIDDEN_CATEGORIES and character not in kept
        else character
        for character in text
    )
