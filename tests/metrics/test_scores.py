"""The mean of scores that are not only 0 or 1."""

import pytest

from harness.metrics.scores import mean_interval


def test_a_mean_has_students_interval():
    interval = mean_interval([1.0, 2.0, 3.0])
    # standard error 1 / sqrt(3); t with 2 degrees of freedom is 4.302653 at 95 %, 2.919986 at 90 %
    assert (interval.low, interval.value, interval.high) == pytest.approx(
        (-0.484138, 2.0, 4.484138), abs=1e-6
    )
    assert mean_interval([1.0, 2.0, 3.0], 0.9).low == pytest.approx(2 - 2.919986 / 3**0.5, abs=1e-6)


@pytest.mark.parametrize("scores", [[], [0.0] * 8, [0.5], [0.1 + 0.2, 0.3]])
def test_scores_without_spread_have_no_interval(scores):
    assert mean_interval(scores) is None
