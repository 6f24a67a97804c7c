"""Whether a run's random draws are a fair comparison for its selection of experts."""

from __future__ import annotations

from statistics import fmean

from harness.runs.summary import Summary

LEAST_USE_SHARE = 0.95
"""Experts that are used more move a model more, whatever they are: draws with less use than this say nothing."""


def use_share_of_draws(summary: Summary) -> float | None:
    """Return the mean use of the evaluated draws as a share of the selection's; None where it is not known."""
    chosen = [summary.variants[name].experts for name in summary.draws()]
    shares = [
        experts.use_share for experts in chosen if experts is not None and experts.use_share is not None
    ]
    return fmean(shares) if shares and len(shares) == len(chosen) else None


def why_no_match(summary: Summary) -> str | None:
    """Return why nothing can be claimed against a run's draws, or None."""
    share = use_share_of_draws(summary)
    if share is None:
        return "how much the drawn experts are used was not recorded"
    if share < LEAST_USE_SHARE:
        return (
            f"the drawn experts carry {share:.0%} of the selection's use, and {LEAST_USE_SHARE:.0%} are needed: "
            "experts that are used more move a model more"
        )
    return None
