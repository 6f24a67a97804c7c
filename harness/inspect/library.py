"""The library inspect_ai, or one line that says how to have it."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from harness.base.errors import BadInputError
from harness.base.extras import pip_line


def registered(name: str) -> str:
    """Return the name to register something under, so that inspect_ai knows it as harness/NAME.

    It puts the package's name before that of what is in site-packages, and not before that of an editable install.
    """
    is_installed = any("site-packages" in place and __file__.startswith(place) for place in sys.path)
    return name if is_installed else f"harness/{name}"


def require_inspect(what: str) -> None:
    """Refuse what needs inspect_ai where it is not installed.

    Raises:
        BadInputError: it is not.
    """
    if find_spec("inspect_ai") is None:
        raise BadInputError(
            f"{what} needs the package inspect_ai, which is not installed: {pip_line('inspect')}"
        )
