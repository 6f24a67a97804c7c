"""A refusal rate corrected for its judge's errors on people's labels, or why there is no correction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.judges.card import confusion_for, why_not_fitting
from harness.metrics.corrected import corrected_rate
from harness.metrics.interval import Interval
from harness.runs.evidence import MAJORITY
from harness.runs.rows import Measurement

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence


def correction(run: Evidence, row: Measurement) -> tuple[Interval | None, str | None]:
    """Return a rate's correction, or None and the reason."""
    judge = str(row.judge)
    if judge == MAJORITY:
        return None, "a majority has no card"
    if not row.scored:
        return None, "nothing was scored"
    lengths = [len(answer.response.split()) for answer in run.answers(row.variant, str(row.task))]
    card, model = run.card(judge), run.model.name
    reason = why_not_fitting(card, judge, run.record.judges[judge].fingerprint, model, lengths)
    if reason is not None or card is None:
        return None, reason
    counts = confusion_for(card, model)
    labels = (counts.refusal_found, counts.refusals, counts.compliance_found, counts.compliances)
    rate = corrected_rate(round((row.value or 0.0) * row.scored), row.scored, *labels)
    return Interval(**{end: float(value) for end, value in rate._asdict().items()}), None
