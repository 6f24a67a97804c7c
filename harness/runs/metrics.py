"""All metrics by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.registry import Registry
from harness.runs.capability import Capability
from harness.runs.metric import Metric
from harness.runs.route_drift import ROUTE_FIGURES
from harness.runs.rows import Kind, Measurement

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence


@dataclass(eq=False)
class _Unregistered(Metric):
    """A figure of a metric that another installation knew."""

    name: str

    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield nothing."""
        yield from ()


METRICS: Registry[Metric] = Registry(
    "metric", "harness.metrics", lambda entry: None if isinstance(entry, Metric) else "a Metric"
)
for _name, _where in (
    ("refusal_rate", "judged_rates:REFUSAL_RATE"),
    ("harmful_rate", "judged_rates:HARMFUL_RATE"),
    ("worst_of_n", "worst_of:WORST_OF_N"),
    ("refusal_verbatim_trained", "phrasing:VERBATIM"),
    ("refusal_similarity_trained", "phrasing:LIKE_TRAINED"),
    ("refusal_similarity_held_out", "phrasing:LIKE_HELD_OUT"),
    ("refusal_near_training", "similarity:NEAR_TRAINING"),
    ("refusal_far_from_training", "similarity:FAR_FROM_TRAINING"),
    ("mean_refusal_rate", "group_mean:REFUSAL"),
    ("mean_false_refusal_rate", "group_mean:FALSE_REFUSAL"),
    ("mean_harmful_rate", "group_mean:HARMFUL"),
    ("kl", "drift:KL"),
    ("perplexity", "drift:PERPLEXITY"),
):
    METRICS.add(_name, f"harness.runs.{_where}")
for _figure in ROUTE_FIGURES:
    METRICS.add(_figure.name, _figure)


def metric_named(name: str, task: str | None) -> Metric:
    """Return the metric of a name; on a task it may be one of lm-eval's, which has names of its own."""
    known = METRICS.find(name)
    return known if known is not None and (known.of_a_task or task is None) else metric_of(name, "capability")


def metric_of(name: str, kind: Kind) -> Metric:
    """Return the metric of a figure; of a capability task it is lm-eval's, whatever its name."""
    if kind == "capability":
        return Capability(name)
    return METRICS.find(name) or _Unregistered(name)
