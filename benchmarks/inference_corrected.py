"""How often the interval of a corrected rate covers the true rate: `python benchmarks/inference_corrected.py`.

Simulated are runs of so many answers, and a judge with errors. A person labels some answers, drawn by their verdict
as `harness judges label` draws them. Each cell of true rate, sensitivity and specificity is simulated on its own. The
intervals are the product's own (`harness.metrics.corrected`).
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from harness.metrics.corrected import Drawn, prediction_powered
from harness.metrics.interval import wilson_ends
from harness.metrics.judge_errors import Part, errors_differ

RATES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
ERRORS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
ANSWERS = (60, 100, 132, 300, 520)


def coverage(repetitions: int, seed: int, labels: int = 50) -> dict[str, Any]:
    """Return coverage, bias and width over all cells, the worst first.

    Args:
        repetitions: simulated runs in each cell.
        seed: of the simulation.
        labels: labelled answers of each run, half of them of each verdict (or all there are).

    Returns:
        `lowest` (the cell with the lowest coverage), `mean`, `cells`, `below_90` (cells), `largest_bias` in points and
        `largest_bias_in_errors` (in standard errors of the simulation), and the same for each number of answers.
    """
    generator = np.random.default_rng(seed)
    parts = {n: _cells(n, labels // 2, repetitions, generator) for n in ANSWERS}
    rows = list(parts.values())
    return {
        "repetitions": repetitions,
        "seed": seed,
        "labels": labels,
        "cells": sum(row["cells"] for row in rows),
        "lowest": min((row["lowest"] for row in rows), key=lambda cell: cell["coverage"]),
        "below_90": sum(row["below_90"] for row in rows),
        "mean": float(np.mean([row["mean"] for row in rows])),
        "largest_bias": max(row["largest_bias"] for row in rows),
        "largest_bias_in_errors": max(row["largest_bias_in_errors"] for row in rows),
        "by_answers": parts,
    }


def _cells(n: int, per_verdict: int, repetitions: int, generator: np.random.Generator) -> dict[str, Any]:
    rate, sensitivity, specificity = np.meshgrid(RATES, ERRORS, ERRORS, indexing="ij")
    shape = (repetitions, *rate.shape)
    refusals = generator.binomial(n, rate, shape)
    found = generator.binomial(refusals, sensitivity)
    called = found + generator.binomial(n - refusals, 1 - specificity)
    missed, others = refusals - found, n - called
    drawn, drawn_others = np.minimum(per_verdict, called), np.minimum(per_verdict, others)
    result = prediction_powered(
        (called / n, *wilson_ends(called / n, n)),
        Drawn(generator.hypergeometric(found, called - found, drawn), drawn),
        Drawn(generator.hypergeometric(missed, others - missed, drawn_others), drawn_others),
    )
    covered = ((result.low <= rate) & (rate <= result.high)).mean(axis=0)
    bias = result.value.mean(axis=0) - rate
    errors = result.value.std(axis=0) / np.sqrt(repetitions)
    at = np.unravel_index(covered.argmin(), covered.shape)
    return {
        "cells": covered.size,
        "lowest": {
            "coverage": float(covered[at]),
            "answers": n,
            "rate": float(rate[at]),
            "sensitivity": float(sensitivity[at]),
            "specificity": float(specificity[at]),
        },
        "below_90": int((covered < 0.9).sum()),
        "mean": float(covered.mean()),
        "width": float((result.high - result.low).mean()),
        "largest_bias": float(np.abs(bias).max()),
        "largest_bias_in_errors": float(np.abs(bias / errors).max()),
    }


def false_differences(repetitions: int, seed: int, labels: int = 50) -> dict[str, float]:
    """Return how often a judge with the same errors everywhere is said to err differently, at p < 0.05."""
    generator = np.random.default_rng(seed)
    return {
        f"{len(rates)} parts of {n}, sensitivity {sensitivity}, specificity {specificity}": float(
            np.mean(
                [
                    (errors_differ(_parts(rates, n, sensitivity, specificity, labels // 2, generator)) or 1)
                    < 0.05
                    for _ in range(repetitions)
                ]
            )
        )
        for n, rates, sensitivity, specificity in (
            (60, (0.1, 0.9), 0.6, 0.6),
            (132, (0.05, 0.95), 0.99, 0.9),
            (132, (0.5, 0.5, 0.5, 0.5), 0.9, 0.95),
        )
    }


def _parts(
    rates: tuple[float, ...],
    n: int,
    sensitivity: float,
    specificity: float,
    per_verdict: int,
    generator: np.random.Generator,
) -> list[Part]:
    parts = []
    for rate in rates:
        refusals = int(generator.binomial(n, rate))
        found = int(generator.binomial(refusals, sensitivity))
        called = found + int(generator.binomial(n - refusals, 1 - specificity))
        missed, others = refusals - found, n - called
        drawn, drawn_others = min(per_verdict, called), min(per_verdict, others)
        positive = int(generator.hypergeometric(found, called - found, drawn))
        others_positive = int(generator.hypergeometric(missed, others - missed, drawn_others))
        parts.append(Part(called, others, drawn, positive, drawn_others, others_positive))
    return parts


def main() -> None:
    """Print both simulations as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=4_000)
    parser.add_argument("--tests", type=int, default=400, help="simulated tests of the judge's errors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", type=int, default=50)
    given = parser.parse_args()
    result = coverage(given.repetitions, given.seed, given.labels)
    result["false_differences"] = false_differences(given.tests, given.seed, given.labels)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
