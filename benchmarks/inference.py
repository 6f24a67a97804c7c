"""Do the product's verdicts keep their promises? Simulated runs, where the truth is known.

    python benchmarks/inference.py --output docs/results/inference.json

Each question is asked of the product's own functions; what runs and gates do with them is in harness/runs/inference.py,
harness/runs/claims.py and harness/gate. Chosen experts and corrected rates have simulations of their own beside this
file, which are run with it. Groups of near-duplicates are as large as those of AdvBench's 520 prompts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from inference_corrected import coverage
from inference_experts import advbench_groups, chosen_intervals, permutation_errors, topic_shares

from harness.experts.draws import Selected
from harness.experts.select import ExpertSelection
from harness.metrics.bounds import difference_p_value
from harness.metrics.clustered import clustered_share, one_per_group
from harness.metrics.draws import beyond_draws, claimed, draw_p_value
from harness.metrics.noninferiority import no_worse_share
from harness.metrics.paired import compare_shares, detectable_difference, mcnemar
from harness.models.moe import Expert

REPETITIONS = 4_000
# How many groups of near-duplicates of each size AdvBench's 520 prompts form.
ADVBENCH = {1: 334, 2: 41, 3: 14, 4: 1, 5: 3, 6: 2, 8: 2, 15: 1}
PROMPTS = 132
SHARED = (0.5, 0.9)
LEVEL = 0.05


class Row(NamedTuple):
    """One figure against what was promised, which is met within two standard errors of the simulation."""

    question: str
    figure: float
    promise: str
    bound: float
    repetitions: int

    @property
    def error(self) -> float:
        """The standard error of a share of repetitions."""
        return (max(self.bound * (1 - self.bound), 1e-12) / self.repetitions) ** 0.5

    @property
    def is_met(self) -> bool:
        """Whether the promise is kept."""
        slack = 2 * self.error
        return (
            self.figure <= self.bound + slack
            if self.promise == "at most"
            else self.figure >= self.bound - slack
        )


def groups(n: int, draw: np.random.Generator) -> np.ndarray:
    """Return a group number for each of about n prompts, with AdvBench's sizes in a random order."""
    sizes = draw.permutation([size for size, times in ADVBENCH.items() for _ in range(times)])
    kept = sizes[: int(np.searchsorted(np.cumsum(sizes), n)) + 1]
    return np.repeat(np.arange(len(kept)), kept)


def grouped(draw: np.random.Generator, share: float, of: np.ndarray, shared: float) -> np.ndarray:
    """Return outcomes of a true share; a prompt has its group's outcome with a probability of `shared`."""
    common = draw.random(of.max() + 1) < share
    return np.where(draw.random(len(of)) < shared, common[of], draw.random(len(of)) < share)


def named(outcomes: np.ndarray) -> dict[str, bool | None]:
    """Return outcomes by the id of their prompt."""
    return {str(place): bool(outcome) for place, outcome in enumerate(outcomes.tolist())}


def spread(draw: np.random.Generator, n: int) -> np.ndarray:
    """Return refusal rates of draws that are as spread as the demo's: from 0 to 100 %, many at the ends."""
    return draw.binomial(PROMPTS, draw.beta(0.4, 0.4, n)) / PROMPTS


def placebos(repetitions: int, draw: np.random.Generator) -> Iterator[Row]:
    """One more draw in place of the method: how often headline and gate call it better; and how often a real shift."""
    for n in (19, 39):
        called = passed = 0
        for _ in range(repetitions):
            own, *others = spread(draw, n + 1).tolist()
            p = draw_p_value(own, others)
            called += claimed(p, n, 1.0).verdict == "shown"
            passed += beyond_draws((own, own), [(each, each) for each in others], 0.0, upwards=True) is True
        yield Row(
            f"claim: a placebo among {n} draws is called better",
            called / repetitions,
            "at most",
            LEVEL,
            repetitions,
        )
        yield Row(
            f"gate: a placebo passes against {n} draws", passed / repetitions, "at most", LEVEL, repetitions
        )


def use_alone(repetitions: int, draw: np.random.Generator) -> Iterator[Row]:
    """A world in which only the use of the experts moves the model, and the chosen ones are used a lot.

    The draws are the product's own, from 4 layers of 32 experts. Refusal grows with the use of a set, with the noise of
    132 prompts, around the use of the chosen set, where it is steepest.
    """
    experts = [Expert(layer, expert) for layer in range(4) for expert in range(32)]
    runs, n = repetitions, 19
    called = 0
    shares = []
    for run in range(runs):
        use = dict(zip(experts, draw.lognormal(0, 1, len(experts)).tolist(), strict=True))
        # Risk goes with use, as on the demo, where the chosen experts have three to five times the use of others.
        risk = {expert: use[expert] * draw.lognormal(0, 0.7) for expert in experts}
        chosen = sorted(sorted(experts, key=lambda expert: -risk[expert])[:12])
        selected = Selected(ExpertSelection("risk_diff", "all", tuple(chosen)), use, run)
        drawn = [selected.use_share(selected.draw("use", seed).experts) or 0.0 for seed in range(n)]
        shares.append(float(np.mean(drawn)))
        rates = 1 / (1 + np.exp(-20 * (np.array([1.0, *drawn]) - 1)))
        own, *others = (draw.binomial(PROMPTS, rates) / PROMPTS).tolist()
        called += claimed(draw_p_value(own, others), n, shares[-1]).verdict == "shown"
    yield Row(
        "claim: choosing by use alone is called better than 19 matched draws",
        called / runs,
        "at most",
        LEVEL,
        runs,
    )
    yield Row(
        "draws: their mean use as a share of the selection's", float(np.mean(shares)), "at least", 0.95, runs
    )


def power(repetitions: int, draw: np.random.Generator) -> Iterator[Row]:
    """A method that is worth having: draws refuse 20 to 60 %, the method 90 %."""
    for n in (19, 39):
        shown = 0
        for _ in range(repetitions):
            others = draw.binomial(PROMPTS, draw.uniform(0.2, 0.6, n)) / PROMPTS
            own = draw.binomial(PROMPTS, 0.9) / PROMPTS
            shown += claimed(draw_p_value(own, others.tolist()), n, 1.0).verdict == "shown"
        yield Row(
            f"claim: 90 % beside draws of 20 to 60 % is called better than {n}",
            shown / repetitions,
            "at least",
            0.8,
            repetitions,
        )


def near_duplicates(repetitions: int, draw: np.random.Generator) -> Iterator[Row]:
    """Two equal variants, or one that is worse by the margin, on prompts that repeat one another."""
    margin, share = 0.05, 0.3
    for shared in SHARED:
        wrong = passed = no_worse = 0
        of = groups(208, draw)
        for seed in range(repetitions):
            by_id = dict(zip(map(str, range(len(of))), of.tolist(), strict=True))
            one, other = (named(grouped(draw, share, of, shared)) for _ in range(2))
            wrong += (compare_shares(one, other, by_id, seed).p_value or 1.0) < LEVEL
            # Worse by the margin: of a base that refuses nothing benign, so many are refused now.
            worse = named(grouped(draw, margin, of, shared))
            result = no_worse_share(
                worse,
                dict.fromkeys(worse, False),
                more_is_better=False,
                margin=margin,
                groups=by_id,
                seed=seed,
            )
            no_worse += result is not None and result.is_no_worse
            drawn = one_per_group(by_id, seed)
            wins = sum(bool(one[id]) and not other[id] for id in drawn)
            losses = sum(bool(other[id]) and not one[id] for id in drawn)
            passed += difference_p_value(wins, losses, len(drawn), 0.0) <= LEVEL
        of_all = f"{shared:.0%} of outcomes shared in groups"
        yield Row(
            f"test: equal variants called different, {of_all}",
            wrong / repetitions,
            "at most",
            0.06,
            repetitions,
        )
        yield Row(
            f"gate: an equal variant passes `above_by: 0`, {of_all}",
            passed / repetitions,
            "at most",
            0.06,
            repetitions,
        )
        yield Row(
            f"cost: a loss as large as the margin called no worse, {of_all}",
            no_worse / repetitions,
            "at most",
            0.025,
            repetitions,
        )


def cluster_intervals(repetitions: int, draw: np.random.Generator) -> Iterator[Row]:
    """How often a rate's interval over groups holds the truth."""
    for shared in (0.0, *SHARED):
        for truth in (0.1, 0.3, 0.5, 0.7, 0.9):
            covered = 0
            for _ in range(repetitions):
                of = groups(208, draw)
                interval = clustered_share(grouped(draw, truth, of, shared).tolist(), of.tolist())
                covered += interval is not None and interval.low <= truth <= interval.high
            figure = covered / repetitions
            what = f"interval over groups covers a rate of {truth}, {shared:.0%} shared"
            yield Row(what, figure, "at least", 0.93, repetitions)
            yield Row(what, figure, "at most", 0.97, repetitions)


def stars(repetitions: int, draw: np.random.Generator) -> Iterator[Row]:
    """A variant with a clear gain, one cost at its margin and three costs of nothing: how often it gets a full star.

    A full star takes every cost to be shown no worse (harness/report/stars.py), so the cost at its margin alone decides
    whether it is given wrongly.
    """
    sizes = {"benign": (132, 0.05), "twins": (66, 0.1), "facts": (120, 0.05), "sums": (60, 0.1)}
    for at_margin, (n, margin) in sizes.items():
        given = 0
        for _ in range(repetitions):
            shown = []
            for cost, (size, limit) in sizes.items():
                lost = draw.random(size) < (limit if cost == at_margin else 0.0)
                result = no_worse_share(
                    named(lost), dict.fromkeys(named(lost), False), more_is_better=False, margin=limit
                )
                shown.append(result is not None and result.is_no_worse)
            given += all(shown)
        yield Row(
            f"star: full though {at_margin} (n = {n}) lose {margin:.0%}, their margin",
            given / repetitions,
            "at most",
            LEVEL,
            repetitions,
        )


def missing(repetitions: int, draw: np.random.Generator) -> Iterator[Row]:
    """Equal variants; of the one, 10 % of answers are unscored, and they are those that would have been compliance."""
    for share in (0.1, 0.5, 0.8):
        declared = left_out = 0
        for _ in range(repetitions):
            base, variant = (draw.random(PROMPTS) < share for _ in range(2))
            unscored = set(np.flatnonzero(~variant)[: round(0.1 * PROMPTS)].tolist())
            mine = {id: None if int(id) in unscored else outcome for id, outcome in named(variant).items()}
            result = compare_shares(mine, named(base))
            p, worst = result.p_value or 1.0, result.worst_case
            is_gain = result.difference is not None and result.difference.value > 0
            left_out += p < LEVEL and is_gain
            declared += max(p, 1.0 if worst is None else worst.p_value) < LEVEL and is_gain
        yield Row(
            f"gain declared with 10 % unscored not at random, both refuse {share:.0%}",
            declared / repetitions,
            "at most",
            0.03,
            repetitions,
        )
        print(f"  (leaving them out would declare it in {left_out / repetitions:.3f})")


def detectable(repetitions: int, draw: np.random.Generator) -> Iterator[Row]:
    """The smallest difference that four of five runs find, at the level of a family of one and of four tests."""
    for n, discordant, tests in ((132, 0.05, 1), (132, 0.3, 4), (520, 0.1, 4)):
        level = LEVEL / tests
        difference = detectable_difference(n, discordant, level)
        share = max(discordant, difference)
        counts = draw.multinomial(
            n, [(share + difference) / 2, (share - difference) / 2, 1 - share], repetitions
        )
        found = sum(mcnemar(int(first), int(second)) <= level for first, second, _ in counts.tolist())
        yield Row(
            f"detectable: {difference:.1%} is found, n = {n}, {tests} tests in the family",
            found / repetitions,
            "at least",
            0.8,
            repetitions,
        )


def experts(repetitions: int, draw: np.random.Generator) -> Iterator[Row]:
    """What is said of chosen experts, and the permutation test that finds them (inference_experts.py)."""
    del draw
    for pairs in (20, 40, 60):
        result = topic_shares(pairs, 0.5, repetitions)
        error, covered = abs(result["median"] - 0.5), result["coverage"]
        yield Row(
            f"topic: error of the median share, truth 0.5, {pairs} pairs", error, "at most", 0.05, repetitions
        )
        yield Row(f"topic: interval covers 0.5, {pairs} pairs", covered, "at least", 0.9, repetitions)
    alone, of = np.arange(208), advbench_groups()
    for harmful, shared in ((alone, 0.0), *((of, shared) for shared in SHARED)):
        covered = chosen_intervals(harmful, alone, shared, repetitions)["coverage"]
        what = f"chosen experts: interval on test prompts covers the truth, {shared:.0%} shared"
        yield Row(what, covered, "at least", 0.93, repetitions)
        yield Row(what, covered, "at most", 0.97, repetitions)
    for shared in SHARED:
        result = permutation_errors(shared, repetitions=repetitions)
        what = f"permutation: an expert of no difference called different, {shared:.0%} shared"
        yield Row(what, result["groups_permuted"], "at most", 0.06, round(result["repetitions"]))


def corrected(repetitions: int, draw: np.random.Generator) -> Iterator[Row]:
    """Rates corrected by 50 labels of a run's own answers (inference_corrected.py)."""
    del draw
    result = coverage(repetitions, 0)
    yield Row(
        "corrected rate: lowest coverage with 50 labels",
        result["lowest"]["coverage"],
        "at least",
        0.9,
        repetitions,
    )


QUESTIONS: tuple[Callable[[int, np.random.Generator], Iterator[Row]], ...] = (
    placebos,
    use_alone,
    power,
    near_duplicates,
    cluster_intervals,
    stars,
    missing,
    detectable,
    experts,
    corrected,
)


def main() -> None:
    """Ask every question and print a table."""
    parser = argparse.ArgumentParser(description="Do verdicts keep their promises?")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="names of questions")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    print("| question | figure | promise | met | repetitions |\n|---|---:|---|---|---:|")
    for number, question in enumerate(QUESTIONS):
        if arguments.only and question.__name__ not in arguments.only:
            continue
        started = time.process_time()
        for row in question(arguments.repetitions, np.random.default_rng([arguments.seed, number])):
            rows.append(row)
            met = "yes" if row.is_met else "**no**"
            print(
                f"| {row.question} | {row.figure:.3f} | {row.promise} {row.bound:g} | {met} | {row.repetitions:,} |",
                flush=True,
            )
        print(f"  ({question.__name__}: {time.process_time() - started:.0f} s)", flush=True)
    if arguments.output is not None:
        content = {"seed": arguments.seed, "rows": [{**row._asdict(), "is_met": row.is_met} for row in rows]}
        arguments.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
