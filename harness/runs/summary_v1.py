"""Summaries of schema_version 1, which runs before version 2 left, as what this version reads.

Version 1 kept the primary judge's rates, all judges' rates, capability and drift in four places of a variant, and did
not say how a variant was made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.runs.rows import BASE

# Version 1 marked random draws by their names, and by the tests of the intervention against them.
_RANDOM = "random_experts"
_OF_A_VARIANT = ("trained_parameters", "frozen_unchanged", "skipped", "seconds")
_OF_A_FIGURE = ("value", "low", "high")


def translate(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a summary of version 1 as that of a summary of today.

    Raises:
        LookupError, TypeError, AttributeError: the file lacks what version 1 always had.
    """
    variants: Mapping[str, Mapping[str, Any]] = content["variants"]
    random = _draws(content)
    return {
        **content,
        "variants": {
            name: {
                **{key: variant[key] for key in _OF_A_VARIANT},
                "specification": {"name": name} | {"draw": 0 if name in random else None},
            }
            for name, variant in variants.items()
        },
        "measurements": [row for name, variant in variants.items() for row in _figures(name, variant)],
        "comparisons": [
            row | {"unit": "items" if row["judge"] is None else "prompts"} for row in content["comparisons"]
        ],
    }


def _draws(content: Mapping[str, Any]) -> set[str]:
    own = content["intervention"]
    tested = {row["against"] for row in content["comparisons"] if row["variant"] == own}
    return {name for name in content["variants"] if name.startswith(_RANDOM) or name in tested - {BASE, own}}


def _figures(name: str, variant: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    tasks: Mapping[str, Mapping[str, Any]] = variant["tasks"]
    rates = {(row["task"], row["metric"], row["judge"]): row for row in variant["measurements"]}
    for task, result in tasks.items():
        rate = rates.pop((task, result["metric"], result["judge"]), {})
        yield {**_rate(name, task, result["kind"], rate), **result, "variant": name, "task": task}
    for (task, metric, judge), row in rates.items():
        yield {**_rate(name, task, tasks[task]["kind"], row), "metric": metric, "judge": judge}
    for task, result in variant["capability"].items():
        about = {"variant": name, "task": task, "kind": "capability", "judge": None}
        yield {**about, **result, "scored": result["n"], "unscored": 0}
    drift = variant.get("drift")
    if drift is not None:
        about = {"variant": name, "task": None, "kind": "text", "judge": None, "tokens": drift["tokens"]}
        about |= {"n": drift["answers"], "scored": drift["answers"], "unscored": 0}
        yield {**about, "metric": "kl", "value": drift["kl"], "low": drift["low"], "high": drift["high"]}
        yield {**about, "metric": "perplexity", "value": drift["perplexity"], "low": None, "high": None}


def _rate(name: str, task: str, kind: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rate by a judge; a rate only in `tasks` has no known clusters and corrections."""
    rate: dict[str, Any] = {"variant": name, "task": task, "kind": kind}
    if row:
        rate |= {key: row[key] for key in (*_OF_A_FIGURE, "n", "scored")}
        rate |= {"unscored": row["n"] - row["scored"], "worst_case": row.get("unscored_range")}
        rate |= {key: row.get(key) for key in ("corrected", "not_corrected")}
    return rate
