"""Does what a report says of chosen experts hold? Simulated routing, where the truth is known.

    python benchmarks/inference_experts.py --output OUT.json

Three questions, each asked of the product's own functions:

- `topic_shares`: is the share that topic explains right, whatever the number of pairs?
- `chosen_intervals`: do intervals of chosen experts cover their true differences, on test prompts that did not choose
  them and, for comparison, on the prompts that did?
- `permutation_errors`: how often does an expert that makes no difference get p <= 0.05 where prompts repeat one
  another, permuted in groups as the product does and, for comparison, prompt by prompt?

Use is overdispersed: a prompt's rate is a gamma with a shape of 2 about the expert's popularity, which is lognormal;
counts are Poisson given the rate and the prompt's length, which is lognormal. Near-duplicates share their rate with a
given probability. Groups are as large as AdvBench's test prompts form them in the default split: 208 prompts in 154
groups.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from harness.experts.held_out import Side, difference_in_use, topic
from harness.experts.permutation import permutation_test
from harness.experts.views import Usage

# Sizes of groups of near-duplicates, and how many groups have each.
ADVBENCH = {1: 131, 2: 12, 3: 7, 5: 2, 7: 1, 15: 1}
REPETITIONS = 4_000
SHARED = (0.0, 0.5, 0.9)
EXPERTS = 128
CHOSEN = 12
LEVEL = 0.05


def advbench_groups() -> np.ndarray:
    """Return a group number for each of 208 prompts."""
    sizes = [size for size, times in ADVBENCH.items() for _ in range(times)]
    return np.repeat(np.arange(len(sizes)), sizes)


def rates(draw: np.random.Generator, means: np.ndarray, groups: np.ndarray, shared: float) -> np.ndarray:
    """Return each prompt's expected routings per token, [N, X], for means [X]; members of a group may share one."""
    of_groups = draw.gamma(2.0, means / 2, size=(groups.max() + 1, means.size))[groups]
    own = draw.gamma(2.0, means / 2, size=of_groups.shape)
    return np.where(draw.random(of_groups.shape) < shared, of_groups, own)


def side(draw: np.random.Generator, means: np.ndarray, groups: np.ndarray, shared: float) -> Side:
    """Return prompts of one kind with their routed tokens."""
    weight = np.clip(draw.lognormal(np.log(60), 0.6, len(groups)), 10, 400).round()
    used = draw.poisson(rates(draw, means, groups, shared) * weight[:, None]).astype(np.float64)
    return Side(used, weight, groups)


def popularities(draw: np.random.Generator, n: int) -> np.ndarray:
    """Return the mean use of n experts per token, about 8 in all of 128."""
    share = draw.lognormal(0, 1.2, n)
    return np.minimum(8 / EXPERTS * share / share.mean(), 0.5)


def topic_shares(pairs: int, truth: float, repetitions: int = REPETITIONS, seed: int = 0) -> dict[str, float]:
    """Return how the share that topic explains is estimated, from so many pairs and twice as many ordinary prompts.

    Harmful prompts use the chosen experts more than ordinary ones by one standard deviation of a prompt. Half of the
    variance is a pair's own.

    Returns:
        median: of the estimate over all repetitions; printed: how often there is a share to print; coverage: how often
        its interval then holds the truth; median_printed: of the estimate where it is printed.
    """
    draw = np.random.default_rng([seed, pairs, round(100 * truth)])
    values, covered = [], []

    def noise(n: int) -> np.ndarray:
        # A gamma of standard deviation 0.5 ** 0.5 about 0, skewed as use is.
        return (draw.gamma(2.0, 1.0, n) - 2.0) / 2.0

    numbers = np.arange(pairs)
    for _ in range(repetitions):
        common = noise(pairs)
        harmful, control = 3 + common + noise(pairs), 2 + truth + common + noise(pairs)
        ordinary = 2 + noise(2 * pairs) + noise(2 * pairs)
        sides = (
            Side(x[:, None], np.ones(len(x)), labels)
            for x, labels in (
                (harmful, numbers),
                (control, numbers),
                (ordinary, pairs + np.arange(2 * pairs)),
            )
        )
        result = topic(*sides)
        share = result.share
        values.append(1 - float(result.against_control.value[0] / result.against_benign.value[0]))
        covered.append(None if share.low is None or share.high is None else share.low <= truth <= share.high)
    known = [each for each in covered if each is not None]
    printed = [value for value, each in zip(values, covered, strict=True) if each is not None]
    return {
        "pairs": pairs,
        "truth": truth,
        "repetitions": repetitions,
        "median": float(np.median(values)),
        "median_printed": float(np.median(printed)),
        "printed": len(known) / repetitions,
        "coverage": float(np.mean(known)),
    }


def chosen_intervals(
    harmful: np.ndarray, benign: np.ndarray, shared: float, repetitions: int = REPETITIONS, seed: int = 0
) -> dict[str, float]:
    """Return how often intervals of the 12 highest of 128 experts hold the truth.

    One expert in ten differs, by a standard normal times its popularity. As many prompts test as choose.

    Args:
        harmful: the group of each harmful prompt.
        benign: the group of each benign prompt.
        shared: how often a near-duplicate has its group's rate.
        repetitions: how many models and sets of prompts are drawn.
        seed: of the draws.
    """
    draw = np.random.default_rng([seed, len(harmful), round(100 * shared)])
    benign = benign + harmful.max() + 1
    hits, before = [], []
    for _ in range(repetitions):
        means = popularities(draw, EXPERTS)
        differs = draw.random(EXPERTS) < 0.1
        raised = np.maximum(means * (1 + differs * draw.standard_normal(EXPERTS)), 0.1 * means)
        first = difference_in_use(side(draw, raised, harmful, shared), side(draw, means, benign, 0))
        chosen = np.argsort(-first.value)[:CHOSEN]
        truth = (raised - means)[chosen]
        later = difference_in_use(
            side(draw, raised[chosen], harmful, shared), side(draw, means[chosen], benign, 0)
        )
        hits.append((later.low <= truth) & (truth <= later.high))
        before.append((first.low[chosen] <= truth) & (truth <= first.high[chosen]))
    return {
        "harmful": len(harmful),
        "groups": int(harmful.max() + 1),
        "benign": len(benign),
        "shared": shared,
        "repetitions": repetitions,
        "coverage": float(np.mean(hits)),
        "coverage_where_they_were_chosen": float(np.mean(before)),
    }


def permutation_errors(
    shared: float,
    *,
    benign_in_groups: bool = False,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    permutations: int = 1_000,
) -> dict[str, float]:
    """Return how often an expert that makes no difference has p <= 0.05, with AdvBench's groups of harmful prompts.

    A repetition is one expert; those of a layer (128) are tested together, as the product tests them.

    Args:
        shared: how often a near-duplicate has its group's rate.
        benign_in_groups: benign prompts form such groups too; otherwise there are 208 that all differ.
        repetitions: how many experts, rounded up to whole layers.
        seed: of the draws.
        permutations: of each test.
    """
    draw = np.random.default_rng([seed, round(100 * shared), benign_in_groups])
    harmful = advbench_groups()
    benign = (advbench_groups() if benign_in_groups else np.arange(len(harmful))) + harmful.max() + 1
    layers = -(-repetitions // EXPERTS)
    in_groups, single = [], []
    for layer in range(layers):
        means = popularities(draw, EXPERTS)
        sides = [
            side(draw, means, groups - groups.min(), shared)._replace(groups=groups)
            for groups in (harmful, benign)
        ]
        for by_group, errors in ((True, in_groups), (False, single)):
            views = [
                usage.summed(each.groups) if by_group else usage
                for each in sides
                for usage in [Usage(each.used[:, None, :], each.weight)]
            ]
            is_harmful = np.arange(sum(len(view.weight) for view in views)) < len(views[0].weight)
            test = permutation_test(
                np.concatenate([view.used for view in views]),
                np.concatenate([view.weight for view in views]),
                is_harmful,
                permutations=permutations,
                seed=layer,
            )
            errors.append(test.p_value <= LEVEL)
    return {
        "shared": shared,
        "benign_in_groups": benign_in_groups,
        "repetitions": layers * EXPERTS,
        "groups_permuted": float(np.mean(in_groups)),
        "prompts_permuted": float(np.mean(single)),
    }


def main() -> None:
    """Run everything, print it and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    options = parser.parse_args()
    how = {"repetitions": options.repetitions}
    results = {
        "permutation": [
            permutation_errors(shared, benign_in_groups=both, **how)
            for shared in SHARED
            for both in (False, True)
        ],
        "topic": [topic_shares(pairs, truth, **how) for truth in (0.0, 0.5, 0.8) for pairs in (20, 40, 60)],
        "chosen": [chosen_intervals(np.arange(n), np.arange(n), 0.0, **how) for n in (20, 40, 100)]
        + [chosen_intervals(advbench_groups(), np.arange(208), shared, **how) for shared in SHARED[1:]],
    }
    for name, rows in results.items():
        for row in rows:
            print(name, json.dumps(row))
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
