"""Search for a training recipe by successive halving on held-out train prompts, then measure one on the test split.

    python benchmarks/recipes.py search OUT --data-dir DATA --rungs 30,90     # benchmarks/recipes.yaml, smol-moe
    python benchmarks/recipes.py final OUT --data-dir DATA --recipe NAME --steps 90 --seeds 0,1,2,3,4
    python benchmarks/recipes.py table OUT                                    # what was measured, as tables and CSV

Half of the train prompts is held out. Each recipe trains on the other half for the steps of the first rung and answers
the held-out prompts; the best third goes on to the next rung. Best is the least shortfall, the sum over aims of how far
a rate is from its aim, its mean over seeds. Every trial is a line of OUT/trials.jsonl, known by its settings: a search
that was killed goes on where it was. Base's answers are made once. The test split plays no part until `final`, which
trains on all train prompts.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from recipe_bench import Answered, Asked, Bench, Recipe, lines
from recipe_tables import shortfall, write_tables
from trials import plan_of

from harness.base.files import write_json
from harness.base.fingerprint import fingerprint
from harness.metrics.rates import rate
from harness.models.load import quiet_transformers
from harness.pipeline.measure import capability_with

TASKS = "advbench,alpaca,jbb_harmful,jbb_benign,xstest_unsafe,xstest_safe,lookalikes"
LIMIT = "limit={identify: 10, train: 80, test: 100}"
# What stands for the test tasks on held-out train prompts: XSTest has no train prompts, so questions and look-alikes
# stand for its two sides.
TRIED_ON = {
    "advbench": 24, "jbb_harmful": 16, "advbench@question": 24, "advbench@forced": 12, "jbb_harmful@forced": 12,
    "alpaca": 24, "jbb_benign": 16, "lookalikes": 40,
}  # fmt: skip

TESTED_ON = {
    "advbench": 100, "jbb_harmful": 40, "xstest_unsafe": 100, "advbench@forced": 40, "jbb_harmful@forced": 40,
    "alpaca": 100, "jbb_benign": 40, "xstest_safe": 100,
}  # fmt: skip


def main() -> None:
    """Search, measure the chosen recipe, or print the tables."""
    arguments = parse()
    quiet_transformers()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.what == "table":
        write_tables(arguments.out, arguments.csv, arguments.chart)
        return
    recipes = read_recipes(arguments.recipes)
    if arguments.recipe:
        unknown = set(arguments.recipe) - {recipe.name for recipe in recipes}
        if unknown:
            raise SystemExit(f"--recipe: no {', '.join(sorted(unknown))} in {arguments.recipes}")
        recipes = [recipe for recipe in recipes if recipe.name in arguments.recipe]
    (search if arguments.what == "search" else final)(arguments, recipes)


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["search", "final", "table"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="smol-moe")
    parser.add_argument("--data-dir", type=Path, action="append", default=[])
    parser.add_argument(
        "--set", action="append", default=[], help="settings of the run that prompts come from"
    )
    parser.add_argument("--recipes", type=Path, default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--recipe", action="append", help="only this one; may be repeated")
    parser.add_argument(
        "--rungs", default=[30, 90], type=numbers, help="optimizer steps of each rung of the search"
    )
    parser.add_argument("--steps", default=90, type=int, help="optimizer steps of the final trainings")
    parser.add_argument("--seeds", default=[0], type=numbers)
    parser.add_argument("--tokens", default=20, type=int, help="longest answer to a held-out prompt")
    parser.add_argument(
        "--no-capability", dest="capability", action="store_const", const=[], default=["piqa_local"]
    )
    parser.add_argument("--csv", type=Path, help="folder to write recipe-*.csv to")
    parser.add_argument("--chart", type=Path, help="SVG of the trials, refusal against false refusal")
    arguments = parser.parse_args()
    arguments.tasks, arguments.limit = TASKS, None
    return arguments


def numbers(text: str) -> list[int]:
    """Read a comma-separated list."""
    return [int(part) for part in text.split(",")]


def read_recipes(path: Path) -> list[Recipe]:
    """Read the recipes of a file; `like: NAME` takes what is not given from an earlier one."""
    recipes: dict[str, dict[str, Any]] = {}
    for row in yaml.safe_load(path.read_text()):
        like = recipes[row.pop("like")] if "like" in row else {}
        mix = {**like.get("mix", {}), **row.pop("mix", {})}
        training = {**like.get("training", {}), **row.pop("training", {})}
        recipes[row["name"]] = {**like, **row, "mix": mix, "training": training}
    return [
        Recipe(**{**row, "mix": {name: n for name, n in row["mix"].items() if n}}) for row in recipes.values()
    ]


def bench_of(arguments: argparse.Namespace) -> Bench:
    """Return the bench of seed 0."""
    settings = [LIMIT, "split_seed=0", "evaluation.forced_start=true", "capability.limit=100"]
    settings += ["training.objectives={refuse: 1, retain: 1, prefer: 1}"]
    # All there are: a mix takes from them.
    settings += ["training.retain_per_refusal=1000"]
    plan = plan_of(
        arguments,
        {"seed": 0, "baselines": [], "capability.tasks": arguments.capability},
        [*settings, *arguments.set],
    )
    return Bench(plan, arguments.out / "base")


def search(arguments: argparse.Namespace, recipes: Sequence[Recipe]) -> None:
    """Try recipes on held-out prompts, the best third of each rung with the steps of the next."""
    first = bench_of(arguments)
    of_seed = {seed: first.of_seed(seed) for seed in arguments.seeds}
    asked = first.tried_on(TRIED_ON)
    base = once(
        arguments.out, "trials", {"recipe": "base"}, lambda: measured(first.ask(asked, arguments.tokens))
    )
    alive = list(recipes)
    for steps in arguments.rungs:
        found = []
        for recipe in alive:
            missed = []
            for seed, bench in of_seed.items():
                key = {"recipe": recipe.record(), "steps": steps, "seed": seed}
                trial = partial(tried, bench, recipe, steps, seed, asked, arguments.tokens)
                row = once(arguments.out, "trials", key, trial, recipe.name)
                missed.append(shortfall(row, base))
                shown = f"{recipe.name}, {steps} steps, seed {seed}: shortfall {missed[-1]:.3f}"
                print(f"{shown}; {in_words(row)}", flush=True)
            found.append((mean(missed), recipe))
        found.sort(key=lambda pair: pair[0])
        alive = [recipe for _, recipe in found[: math.ceil(len(found) / 3)]]
        print(f"after {steps} steps: {', '.join(recipe.name for recipe in alive)}", flush=True)


def tried(
    bench: Bench, recipe: Recipe, steps: int, seed: int, asked: Sequence[Asked], tokens: int
) -> dict[str, Any]:
    """Train by a recipe, and return facts on that and what the model answers then."""
    with bench.trained(recipe, steps, seed) as facts:
        return {**facts, **measured(bench.ask(asked, tokens))}


def final(arguments: argparse.Namespace, recipes: Sequence[Recipe]) -> None:
    """Measure one recipe on the test split, with several seeds."""
    (recipe,) = recipes
    first = bench_of(arguments)
    for seed in arguments.seeds:
        bench = first.of_seed(seed)
        tokens = bench.session.config.generation.max_new_tokens or 40

        def whole(
            tested_on: Mapping[str, int] = TESTED_ON, bench: Bench = bench, tokens: int = tokens
        ) -> dict[str, Any]:
            result = measured(bench.ask(bench.test(tested_on), tokens))
            found = capability_with(bench.session.engine, bench.session.config, system_prompt=None)
            return result | {"capability": {task: each.value for task, each in found.items()}}

        def trained(bench: Bench = bench, seed: int = seed) -> dict[str, Any]:
            with bench.trained(recipe, arguments.steps, seed, everything=True) as facts:
                return {**facts, **whole(bench=bench)}

        if seed == arguments.seeds[0]:
            # What false refusal is set beside; refusal has aims of its own.
            benign = {name: n for name, n in TESTED_ON.items() if bench.kind(name) == "benign"}
            base = once(arguments.out, "final", {"recipe": "base"}, lambda: whole(benign))  # noqa: B023
        key = {"recipe": recipe.record(), "steps": arguments.steps, "seed": seed}
        row = once(arguments.out, "final", key, trained, recipe.name)
        print(
            f"{recipe.name}, seed {seed}: shortfall {shortfall(row, base):.3f}; {in_words(row)}", flush=True
        )


def once(out: Path, file: str, key: Mapping[str, Any], work: Any, name: str = "base") -> dict[str, Any]:
    """Return a result from a file of lines, or measure it and add its line."""
    known = fingerprint(key)
    for row in lines(out / f"{file}.jsonl"):
        if row["key"] == known:
            return row
    started, worked = time.perf_counter(), time.process_time()
    row = {"key": known, "name": name, **key, **work(), "seconds": round(time.perf_counter() - started, 1)}
    row["cpu_seconds"] = round(time.process_time() - worked, 1)
    answers = row.pop("answers")
    write_json(out / "answers" / f"{file}-{name}-{known[:12]}.json", answers)
    with (out / f"{file}.jsonl").open("a") as target:
        target.write(json.dumps(row) + "\n")
    print(f"{name}: {row['seconds']:.0f} s", file=sys.stderr, flush=True)
    return row


def measured(answered: Sequence[Answered]) -> dict[str, Any]:
    """Return the rates of answers, the verdicts behind them, and the answers themselves."""
    rates = {}
    for each in answered:
        found = rate(each.refused)
        low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
        rates[each.task] = {
            "kind": each.kind, "value": found.value, "low": low, "high": high, "scored": found.scored, "n": found.n,
        }  # fmt: skip
    return {
        "rates": rates,
        "verdicts": {each.task: each.refused for each in answered},
        "answers": {each.task: {a.id: a.response for a in each.answers} for each in answered},
    }


def in_words(row: Mapping[str, Any]) -> str:
    """Return the rates in one line."""
    return ", ".join(
        f"{task} {each['value'] if each['value'] is None else round(each['value'], 3)}"
        for task, each in row["rates"].items()
    )


if __name__ == "__main__":
    main()
