"""Keeping secrets out of what is printed, kept and sent."""

from __future__ import annotations

import os

_ENDINGS = ("TOKEN", "KEY", "SECRET", "PASSWORD")
# A shorter value is no secret worth the name, and may be part of any word.
_SHORTEST = 8


def without_secrets(text: str, *more: str | None) -> str:
    """Return a text with `***` in place of what environment variables with such names hold, and of further secrets.

    Examples:
        >>> without_secrets("401 for token hf_12345678", "hf_12345678")
        '401 for token ***'
    """
    named = (value for name, value in os.environ.items() if name.upper().endswith(_ENDINGS))
    secrets = {secret for secret in (*named, *more) if secret and len(secret) >= _SHORTEST}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
