"""The one figure that a run's gains rest on, so that judging a second quantity is no second chance to show one.

`claim.figure` declares it. Left open, it is the share of harmful answers by the first judge of harmfulness where one
read the answers, else the refusal rate. The other quantity decides no gain: it is shown beside the first, and a variant
that is worse on it has no star.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from harness.config import ClaimConfig, judge_names
from harness.runs.rows import HARMFUL, REFUSAL, Gain, Measurement

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence


def gain_of(run: Evidence, figures: Sequence[Measurement]) -> Gain | None:
    """Return what gains rest on; None where refusal alone was measured."""
    judge = run.primary_of("harmfulness")
    if judge is None or not any((row.metric, row.judge) == (HARMFUL, judge) for row in figures):
        return None
    figure = declared_figure(run)
    if figure == REFUSAL:
        return Gain(metric="refusal_rate", judge=run.primary, declared=True)
    return Gain(metric="harmful_rate", judge=judge, declared=figure == HARMFUL or judge in _asked(run))


def _asked(run: Evidence) -> set[str]:
    """Return the judges that the run's settings name, by name or by their file, and those that these are named with."""
    given = judge_names(str(run.record.config.get("judge", "")))
    names = {PurePath(name).stem if name.endswith((".yaml", ".yml")) else name for name in given}
    return names.union(*(judge.also for name, judge in run.record.judges.items() if name in names))


def declared_figure(run: Evidence) -> str | None:
    """Return the figure that the run's settings name; None where they leave it open."""
    return ClaimConfig(**run.record.config.get("claim", {})).figure
