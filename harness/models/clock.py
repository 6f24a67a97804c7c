"""The clock that chat templates read: it stands still within a run, so that all answers are asked for on one day.

Some templates write the date into every prompt. Answers of one day and of the next would differ with the same weights.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def clock_at(time: datetime.datetime) -> Iterator[None]:
    """Let every chat template read this time inside the block, whoever renders it: an engine, lm-eval or a judge."""
    from transformers.utils import chat_template_utils

    templates: Any = chat_template_utils

    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return time

    # `strftime_now`, which templates call, asks this name for the time; transformers has no other way in.
    running = templates.datetime
    templates.datetime = Stopped
    try:
        yield
    finally:
        templates.datetime = running
