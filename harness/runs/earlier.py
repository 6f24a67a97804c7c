"""Capability figures that an earlier version wrote, which read the direction off the metric's name and tested all."""

from __future__ import annotations

import math
from typing import Any

_LESS_WAS_BETTER = frozenset({"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"})


def with_direction(figure: Any) -> Any:
    """Return a figure of capability.json or summary.json, completed by its direction if it has none.

    Args:
        figure: as the file holds it; what is no capability figure is returned as it is.
    """
    is_capability = isinstance(figure, dict) and figure.get("kind", "capability") == "capability"
    if not is_capability or "higher_is_better" in figure:
        return figure
    is_less = figure.get("metric") in _LESS_WAS_BETTER
    completed = {**figure, "higher_is_better": not is_less, "is_mean": not is_less}
    if "items" in figure:
        scores, value = list(figure["items"].values()), figure.get("value")
        mean = math.fsum(scores) / len(scores) if scores else math.nan
        return completed | {"is_mean": value is not None and math.isclose(mean, value, abs_tol=1e-12)}
    ends = [end for end in (figure.get("value"), figure.get("high")) if end is not None]
    return completed | {"unit": "number" if is_less or not all(0 <= end <= 1 for end in ends) else "share"}
