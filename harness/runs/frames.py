"""The lists of a summary as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from harness.runs.summary import Measurement, Summary, TaskResult

MEASUREMENT_COLUMNS = (
    *("variant", "task", "kind", "metric", "judge", "value", "low", "high"),
    *("n", "scored", "unscored"),
)


def measurements(summary: Summary) -> pd.DataFrame:
    """Return every figure, one row per variant, task, metric and judge."""
    import pandas as pd

    return pd.DataFrame(_measured(summary), columns=list(MEASUREMENT_COLUMNS))


def comparisons(summary: Summary) -> pd.DataFrame:
    """Return every paired test, one row each."""
    import pandas as pd

    from harness.runs.summary import Comparison

    rows = [row.model_dump(mode="json") for row in summary.comparisons]
    return pd.DataFrame(rows, columns=list(Comparison.model_fields))


def _measured(summary: Summary) -> Iterator[dict[str, Any]]:
    for name, variant in summary.variants.items():
        kinds = {task: result.kind for task, result in variant.tasks.items()}
        rows: dict[tuple[str, str, str], TaskResult | Measurement] = {
            (row.task, row.metric, row.judge): row for row in variant.measurements
        }
        rows |= {(task, row.metric, row.judge): row for task, row in variant.tasks.items()}
        for (task, metric, judge), row in rows.items():
            yield {
                "variant": name,
                "task": task,
                "kind": kinds.get(task),
                "metric": metric,
                "judge": judge,
                "value": row.value,
                "low": row.low,
                "high": row.high,
                "n": row.n,
                "scored": row.scored,
                "unscored": row.n - row.scored,
            }
        for task, result in variant.capability.items():
            yield {
                "variant": name,
                "task": task,
                "kind": "capability",
                "metric": result.metric,
                "judge": None,
                "value": result.value,
                "low": result.low,
                "high": result.high,
                "n": result.n,
                "scored": result.n,
                "unscored": 0,
            }
        if variant.drift is not None:
            yield {
                "variant": name,
                "kind": "drift",
                "metric": "kl",
                "value": variant.drift.kl,
                "low": variant.drift.low,
                "high": variant.drift.high,
                "n": variant.drift.answers,
                "scored": variant.drift.answers,
                "unscored": 0,
            }
