"""Does the selection of experts find what was planted, and nothing else? Simulated routing, where the truth is known.

    python benchmarks/selection_simulations.py --output OUT.json
    python benchmarks/selection_simulations.py --timing

A model of 48 layers with 128 experts, 8 a token. What stands for real routing:

- Popularity is heavy-tailed: an expert's expected share of a layer is lognormal (sigma 1.2), at most 0.5 of the tokens.
- Prompts are overdispersed: a prompt's rates are independent gammas with the popularities as mean, normalised over the
  layer, hence Dirichlet. Counts are Poisson given the rate and the length. So a layer's counts sum to 8 a token
  on average and not exactly; what one expert gains, its layer-mates lose by the normalisation.
- Lengths are lognormal (median 60, sigma 0.6, 10 to 400 tokens).
- A planted expert's expected usage is higher on harmful prompts by EFFECT standard deviations of the prompts' own
  rates. Planted are experts whose popularity is above the layer's lowest quarter.

To save time, a test uses 1,000 permutations. That can't give the p-values at which one expert alone, or four, would be
selected. So with fewer than 12 planted, layers with a p-value of 3e-4 or less are tested again with 10,000: an expert
that 10,000 permutations would select hardly ever (about once in a million) has a larger one at first.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.experts.permutation import PermutationTest, paired_test, permutation_test, q_values

LAYERS, EXPERTS, TOP_K = 48, 128, 8
SIGMA = 1.2
CONCENTRATION = 256.0
EFFECT = 1.0
PERMUTATIONS = 1_000
MORE_PERMUTATIONS = 10_000
RECHECK = 3e-4
LEVEL = 0.05
TOPICS = 10


class World(NamedTuple):
    """A model and what was planted: Dirichlet shapes [L, E] of benign and harmful prompts, planted [L, E]."""

    benign: np.ndarray
    harmful: np.ndarray
    planted: np.ndarray


def world(draw: np.random.Generator, n_planted: int, sigma: float = SIGMA) -> World:
    """Draw popularities, lognormal with sigma, and plant experts."""
    share = draw.lognormal(0, sigma, size=(LAYERS, EXPERTS))
    share = np.minimum(share / share.sum(axis=1, keepdims=True), 0.5 / TOP_K)
    benign = CONCENTRATION * share / share.sum(axis=1, keepdims=True)
    common = benign > np.quantile(benign, 0.25, axis=1, keepdims=True)
    planted = np.zeros((LAYERS, EXPERTS), dtype=bool)
    planted.flat[draw.choice(np.flatnonzero(common), n_planted, replace=False)] = True
    # A Dirichlet's share s has the variance s (1 - s) / (CONCENTRATION + 1); shapes are shares times CONCENTRATION.
    spread = np.sqrt(benign * (CONCENTRATION - benign) / (CONCENTRATION + 1))
    return World(benign, benign + EFFECT * spread * planted, planted)


def rates(draw: np.random.Generator, shape: np.ndarray, n: int) -> np.ndarray:
    """Return each prompt's expected routings a token, [n, L, E]: shape is [L, E] or [n, L, E]."""
    gammas = draw.standard_gamma(
        np.broadcast_to(shape.astype(np.float32), (n, LAYERS, EXPERTS)), dtype=np.float32
    )
    return gammas * (TOP_K / gammas.sum(axis=-1, keepdims=True))


def counts(draw: np.random.Generator, rate: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return routed tokens [n, L, E] for rates [n, L, E] and tokens [n]."""
    return draw.poisson(rate * tokens[:, None, None].astype(np.float32)).astype(np.float32)


def lengths(draw: np.random.Generator, n: int, median: float = 60) -> np.ndarray:
    """Return tokens [n]."""
    return np.clip(draw.lognormal(np.log(median), 0.6, n), 10, 400).round()


def p_values(test: Callable[[slice | np.ndarray, int], PermutationTest], n_planted: int) -> np.ndarray:
    """Return p-values [L, E] of a test of some layers with some permutations, with more where it matters."""
    p_value = test(slice(None), PERMUTATIONS).p_value
    again = np.flatnonzero((p_value <= RECHECK).any(axis=1))
    if n_planted < 12 and len(again):
        p_value[again] = test(again, MORE_PERMUTATIONS).p_value
    return p_value


def unpaired(
    used: np.ndarray, weight: np.ndarray, unsafe: np.ndarray, seed: int, n_planted: int
) -> np.ndarray:
    """Return p-values of the test of two groups."""

    def test(layers: slice | np.ndarray, permutations: int) -> PermutationTest:
        return permutation_test(used[:, layers], weight, unsafe, permutations=permutations, seed=seed)

    return p_values(test, n_planted)


def paired(differences: np.ndarray, seed: int, n_planted: int) -> np.ndarray:
    """Return p-values of the test of pairs."""

    def test(layers: slice | np.ndarray, permutations: int) -> PermutationTest:
        return paired_test(differences[:, layers], permutations=permutations, seed=seed)

    return p_values(test, n_planted)


def outcome(p_value: np.ndarray, planted: np.ndarray) -> dict[str, float]:
    """Return how many experts were selected at q <= LEVEL and which were right."""
    selected = q_values(p_value) <= LEVEL
    n, right = int(selected.sum()), int((selected & planted).sum())
    found = {"selected": n, "any": float(n > 0), "fdp": (n - right) / max(n, 1)}
    return found | ({"sensitivity": right / planted.sum()} if planted.any() else {})


def planted_row(
    draw: np.random.Generator,
    seed: int,
    n_planted: int,
    harmful: int = 200,
    benign: int = 200,
    sigma: float = SIGMA,
) -> dict[str, float]:
    """Compare harmful prompts with benign ones; with nothing planted, see how often small p-values occur."""
    model = world(draw, n_planted, sigma)
    used, tokens = [], lengths(draw, harmful + benign)
    used.append(counts(draw, rates(draw, model.harmful, harmful), tokens[:harmful]))
    used.append(counts(draw, rates(draw, model.benign, benign), tokens[harmful:]))
    all_used = np.concatenate(used)
    unsafe = np.arange(harmful + benign) < harmful
    p_value = unpaired(all_used, tokens, unsafe, seed, n_planted)
    found = outcome(p_value, model.planted)
    if not n_planted:
        rank = np.argsort(np.argsort(model.benign, axis=1), axis=1)
        for quarter in range(4):
            of_quarter = p_value[rank * 4 // EXPERTS == quarter]
            for level in (0.01, 0.001, 0.0001):
                found[f"p<={level:g}, quarter {quarter + 1}"] = float((of_quarter <= level).mean() / level)
    return found


def topic_row(draw: np.random.Generator, seed: int, n_planted: int) -> dict[str, float]:
    """Harmful prompts and their twins share topics that move experts; ordinary benign prompts have none of them."""
    n = 200
    model = world(draw, n_planted)
    moved = draw.random((TOPICS, LAYERS, EXPERTS)) < 0.1
    topic = np.exp(moved * draw.normal(0, 0.7, size=moved.shape))
    of_pair = draw.integers(0, TOPICS, n)
    tokens = lengths(draw, 3 * n)
    harmful = counts(draw, rates(draw, model.harmful * topic[of_pair], n), tokens[:n])
    twins = counts(draw, rates(draw, model.benign * topic[of_pair], n), tokens[n : 2 * n])
    ordinary = counts(draw, rates(draw, model.benign, n), tokens[2 * n :])
    # The raw tests find so many that more permutations would change nothing.
    raw = unpaired(
        np.concatenate([harmful, ordinary]),
        np.concatenate([tokens[:n], tokens[2 * n :]]),
        np.arange(2 * n) < n,
        seed,
        EXPERTS,
    )
    differences = harmful / tokens[:n, None, None] - twins / tokens[n : 2 * n, None, None]
    adjusted = paired(differences, seed, n_planted)
    found = {f"raw {key}": value for key, value in outcome(raw, model.planted).items()}
    return found | {f"paired {key}": value for key, value in outcome(adjusted, model.planted).items()}


def length_row(draw: np.random.Generator, seed: int, n_planted: int) -> dict[str, float]:
    """Expert use depends on the position in an answer, and harmful answers are shorter."""
    n, cut = 200, 16
    model = world(draw, n_planted)
    later = np.exp(draw.normal(0, 0.5, size=(LAYERS, EXPERTS)))
    tokens = np.concatenate([cut + lengths(draw, n, median=20), cut + lengths(draw, n, median=100)])
    shape = np.stack([model.harmful, model.benign])
    first = np.concatenate([counts(draw, rates(draw, s, n), np.full(n, cut)) for s in shape])
    rest = np.concatenate(
        [
            counts(draw, rates(draw, s * later, n), t - cut)
            for s, t in zip(shape, np.split(tokens, 2), strict=True)
        ]
    )
    unsafe = np.arange(2 * n) < n
    raw = unpaired(first + rest, tokens, unsafe, seed, EXPERTS)
    same = unpaired(first / cut, np.ones(2 * n), unsafe, seed, n_planted)
    found = {f"raw {key}": value for key, value in outcome(raw, model.planted).items()}
    return found | {f"cut {key}": value for key, value in outcome(same, model.planted).items()}


# Name of the row: simulations, kind, arguments.
ROWS = {
    "planted 0": (200, planted_row, (0,)),
    "planted 4": (200, planted_row, (4,)),
    "planted 12": (200, planted_row, (12,)),
    "planted 50": (200, planted_row, (50,)),
    "topic alone": (200, topic_row, (0,)),
    "length alone": (200, length_row, (0,)),
    "topic, planted 12": (100, topic_row, (12,)),
    "length, planted 12": (100, length_row, (12,)),
    "60 harmful, 340 benign, planted 0": (100, planted_row, (0, 60, 340)),
    "340 harmful, 60 benign, planted 0": (100, planted_row, (0, 340, 60)),
    "sigma 2, planted 0": (100, planted_row, (0, 200, 200, 2.0)),
}


def simulate(simulations: int | None, rows: list[str], output: Path | None) -> None:
    """Run rows and print mean and standard error of every figure."""
    results = {}
    for number, (name, (default, row, arguments)) in enumerate(ROWS.items()):
        n = simulations or default
        if name not in rows:
            continue
        start = time.perf_counter()
        runs = [row(np.random.default_rng([number, i]), i, *arguments) for i in range(n)]
        figures = {}
        for key in runs[0]:
            values = np.array([run[key] for run in runs])
            figures[key] = (float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))
        results[name] = figures
        print(f"{name}  ({n} simulations, {time.perf_counter() - start:.0f} s)")
        for key, (mean, error) in figures.items():
            print(f"    {key:24} {mean:9.4f}  SE {error:.4f}", flush=True)
        if output:
            output.write_text(json.dumps(results, indent=1), encoding="utf-8")


def time_one(prompts: int, permutations: int) -> None:
    """Time one test and report the process's peak memory, the data included."""
    draw = np.random.default_rng(0)
    tokens = lengths(draw, prompts)
    shape = world(draw, 0).benign
    used = np.concatenate(
        [counts(draw, rates(draw, shape, len(t)), t) for t in np.array_split(tokens, prompts // 50)]
    )
    start, busy = time.perf_counter(), time.process_time()
    permutation_test(used, tokens, np.arange(prompts) % 2 == 0, permutations=permutations, seed=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{prompts} prompts, {permutations} permutations: {time.perf_counter() - start:.1f} s "
        f"({time.process_time() - busy:.1f} s of one core), peak {peak:.0f} MiB"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, help="of every row; else what ROWS says")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--timing", action="store_true", help="time the test instead")
    parser.add_argument("--time-one", type=int, nargs=2, metavar=("PROMPTS", "PERMUTATIONS"))
    options = parser.parse_args()
    if options.time_one:
        time_one(*options.time_one)
    elif options.timing:
        # A process each, since peak memory never falls.
        for case in (("1000", "10000"), ("2000", "10000"), ("1000", "20000")):
            subprocess.run([sys.executable, __file__, "--time-one", *case], check=True)
    else:
        simulate(options.simulations, options.rows, options.output)


if __name__ == "__main__":
    main()
