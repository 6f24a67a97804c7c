"""The ways a run can end badly, and the name a user probably meant.

Exit codes (docs/command-line.md): 1 the run failed, 2 bad input. Every message is one line that says what
was wrong, where, and what was expected.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """The run failed (NaN loss, out of memory, a broken engine); what was finished is kept."""

    exit_code = 1


class BadInputError(HarnessError):
    """The input cannot be used; nothing was written."""

    exit_code = 2


class VariantImpossibleError(HarnessError):
    """This model cannot have a variant; the run skips it with this reason."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error that is not blank, or the kind of error."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a clause that helps after a wrong name: the nearest known one, or the whole list.

    Examples:
        >>> nearest("advbnech", ["advbench", "alpaca"])
        "did you mean 'advbench'?"
        >>> nearest("zzz", ["b", "a"])
        'known: a, b'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names) or 'none'}"
