"""How often the interval of a corrected rate covers the true rate: `python benchmarks/corrected_coverage.py`.

Simulated are runs of `n` answers by a judge whose errors were measured on so many labelled refusals and as many
compliances. Each cell of true rate, missed refusals and compliance taken for refusal is simulated on its own;
docs/results/judges.md has the output.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np

from harness.metrics.corrected import corrected_rate

RATES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
ERRORS = (0.0, 0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
ANSWERS = (100, 300, 520)
LABELLED = (50, 100, 300)


def coverage(
    n: int, labelled: int, simulations: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return coverage and mean width of the interval for each cell [rates, missed, excess]."""
    rate, missed, excess = np.meshgrid(RATES, ERRORS, ERRORS, indexing="ij")
    called = rate * (1 - missed) + (1 - rate) * excess
    shape = (simulations, *rate.shape)
    found = corrected_rate(
        generator.binomial(n, called, shape),
        n,
        generator.binomial(labelled, 1 - missed, shape),
        labelled,
        generator.binomial(labelled, 1 - excess, shape),
        labelled,
    )
    covered = (found.low <= rate) & (rate <= found.high)
    return covered.mean(axis=0), (found.high - found.low).mean(axis=0)


def main() -> None:
    """Print one row for each size of run and of label file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--simulations", type=int, default=5_000, help="of each cell")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    print(
        "| answers | labelled of each kind | cells | lowest coverage | at rate, missed, excess | below 0.93 "
        "| mean | mean width |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for n, labelled in itertools.product(ANSWERS, LABELLED):
        covered, width = coverage(n, labelled, arguments.simulations, generator)
        worst = np.unravel_index(int(covered.argmin()), covered.shape)
        where = ", ".join(
            f"{axis[place]:g}" for axis, place in zip((RATES, ERRORS, ERRORS), worst, strict=True)
        )
        print(
            f"| {n} | {labelled} | {covered.size} | {covered.min():.4f} | {where} | {(covered < 0.93).sum()} "
            f"| {covered.mean():.4f} | {width.mean():.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
