"""How long a job still takes: by a model of its cost at first, then by what its pieces were measured to take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Piece(NamedTuple):
    """One piece of a job, before it is done.

    Attributes:
        kind: pieces of a kind are off by the same factor, such as those that generate.
        seconds: what the model of the cost says.
        part: the part of the job that it belongs to, such as "variant 3 of 8, steer".
    """

    kind: str
    seconds: float
    part: str


class Forecast:
    """The pieces of a job that are still to be done, in their order, and the time that they will take.

    Args:
        pieces: by name.
        clock: seconds that only grow.
    """

    def __init__(self, pieces: Mapping[str, Piece], clock: Callable[[], float] = time.monotonic) -> None:
        self.pieces = dict(pieces)
        self._clock = clock
        self._left = dict(pieces)
        self._expected: dict[str, float] = {}
        self._measured: dict[str, float] = {}
        self._current: str | None = None
        self._began = self._began_job = clock()
        self._share = 0.0

    @property
    def part(self) -> str:
        """The part of the job that is being done."""
        return self.pieces[self._current].part if self._current in self.pieces else ""

    def begin(self, name: str) -> None:
        """Begin a piece; those before it that were not begun will not be."""
        if name in self._left:
            for earlier in list(self._left):
                if earlier == name:
                    break
                del self._left[earlier]
            self._current, self._began, self._share = name, self._clock(), 0.0

    def advance(self, share: float) -> None:
        """Say how much of the current piece is done."""
        self._share = share

    def end(self, name: str) -> None:
        """End the current piece."""
        done = self._left.pop(name, None)
        if done is not None:
            spent = self._clock() - self._began
            self._expected[done.kind] = self._expected.get(done.kind, 0.0) + done.seconds
            self._measured[done.kind] = self._measured.get(done.kind, 0.0) + spent

    def skip(self, name: str) -> None:
        """Pass over a piece that had been done before."""
        self._left.pop(name, None)

    def left(self) -> float:
        """Return the seconds that are left."""
        rest, factors = 0.0, self._factors()
        for name, piece in self._left.items():
            seconds = piece.seconds * factors[piece.kind]
            if name == self._current:
                spent = self._clock() - self._began
                seconds = spent / self._share - spent if self._share > 0 else max(0.0, seconds - spent)
            rest += seconds
        return rest

    def done(self) -> float:
        """Return the share of the job's time that has passed."""
        spent = self._clock() - self._began_job
        return spent / max(spent + self.left(), 1e-9)

    def _factors(self) -> dict[str, float]:
        """Return how many times the model's seconds pieces take, by kind; the current one counts as far as it is done.

        A kind that was not measured yet is taken for as far off as all that was, but by its square root alone: a slow
        machine is slow at everything, while the model may be wrong about one kind only.
        """
        expected, measured = dict(self._expected), dict(self._measured)
        current = self._left.get(self._current or "")
        if current is not None and self._share > 0:
            expected[current.kind] = expected.get(current.kind, 0.0) + current.seconds * self._share
            measured[current.kind] = measured.get(current.kind, 0.0) + self._clock() - self._began
        known = {kind: measured[kind] / seconds for kind, seconds in expected.items() if seconds}
        of_all = sum(measured.values()) / sum(expected.values()) if known else 1.0
        return {piece.kind: known.get(piece.kind, of_all**0.5) for piece in self._left.values()}


def in_words(seconds: float) -> str:
    """Return a rough duration in words.

    Examples:
        >>> in_words(42)
        'about 40 s'
        >>> in_words(7800)
        'about 2 h 10 min'
    """
    if seconds < 5:
        return "a few seconds"
    if seconds < 90:
        return f"about {5 * round(seconds / 5)} s" if seconds < 20 else f"about {10 * round(seconds / 10)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} min"
    hours, minutes = divmod(10 * round(minutes / 10), 60)
    return f"about {hours} h" + (f" {minutes} min" if minutes else "")
