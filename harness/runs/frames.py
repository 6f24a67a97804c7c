"""The lists of a summary as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from harness.runs.summary import Summary

MEASUREMENT_COLUMNS = (
    *("variant", "task", "kind", "metric", "judge", "value", "low", "high"),
    *("n", "scored", "unscored"),
)


def measurements(summary: Summary) -> pd.DataFrame:
    """Return every figure, one row per variant, task, metric and judge."""
    import pandas as pd

    return pd.DataFrame(
        [row.model_dump(include=set(MEASUREMENT_COLUMNS)) for row in summary.measurements],
        columns=list(MEASUREMENT_COLUMNS),
    )


def comparisons(summary: Summary) -> pd.DataFrame:
    """Return every paired test, one row each."""
    import pandas as pd

    from harness.runs.rows import Comparison

    rows = [row.model_dump(mode="json") for row in summary.comparisons]
    return pd.DataFrame(rows, columns=list(Comparison.model_fields))
