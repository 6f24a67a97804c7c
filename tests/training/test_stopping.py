"""Early stopping: which look was the best, and when there were enough since."""

from __future__ import annotations

import pytest

from harness.training.stopping import Look, best_step, looks_since_best


def log_of(*scores: float | None) -> list[dict]:
    """A log with a look after each step that has a score."""
    looks = [{} if score is None else Look(score, None).row() for score in scores]
    return [{"step": step, **look} for step, look in enumerate(looks, start=1)]


def test_a_score_is_refusal_less_false_refusal():
    assert Look(0.9, 0.2).score == pytest.approx(0.7)
    assert Look(0.9, None).score == 0.9
    assert Look(0.5, 0.25).row() == {"held_out": {"refusal": 0.5, "false_refusal": 0.25, "score": 0.25}}


@pytest.mark.parametrize(
    ("scores", "best", "since"),
    [
        ((), None, 0),
        ((None, None), None, 0),
        ((None, 0.0), 2, 0),
        ((None, 0.4, None, 0.8, None, 0.6), 4, 1),
        ((0.8, 0.8, 0.8), 1, 2),  # the earliest of equals: the state that moved least
        ((0.9, 0.1, 0.2, 0.3), 1, 3),
        ((-0.5, -0.2), 2, 0),
    ],
)
def test_the_best_look_and_those_since(scores, best, since):
    log = log_of(*scores)
    assert (best_step(log), looks_since_best(log)) == (best, since)
