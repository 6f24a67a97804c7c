"""Does the way of selecting experts matter? Methods beside one another, and beside draws of random experts.

The first run has the random draws (`--draws 5`); each further one trained the experts of another `--method`, with the
same model, prompts and training. Two tables are printed as Markdown: how many of the top experts by each method
coincide, and what each variant refuses. A method is then compared with the draws: would another draw lie as far from
their mean? (Student's t with the spread between draws; it speaks of draws, where a test over prompts would speak of two
checkpoints.)

    python benchmarks/selection_methods.py RUN_WITH_DRAWS RUN_BY_ANOTHER_METHOD... --top-k 24
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scipy import stats

from harness.base.errors import BadInputError
from harness.experts.select import METHODS, Limits, select_experts
from harness.runs.rows import Measurement
from harness.runs.summary import Summary, read_summary

FEWEST_DRAWS = 3


def expert_table(runs: Sequence[Path]) -> pd.DataFrame:
    """Return the first run's expert table, with the columns that only another run has.

    Raises:
        BadInputError: the runs captured different routing.
    """
    table, *others = (pd.read_parquet(run / "experts.parquet") for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        if not other[["phase", "layer", "expert", "a_safe", "a_unsafe"]].equals(
            table[["phase", "layer", "expert", "a_safe", "a_unsafe"]]
        ):
            raise BadInputError(f"{run}: its experts were counted on other answers than those of {runs[0]}")
        table = table.assign(**{name: other[name] for name in other.columns if name not in table.columns})
    return table


def overlap(table: pd.DataFrame, phase: str, top_k: int) -> str:
    """Return how many of the top experts by each pair of methods coincide, as Markdown."""
    chosen = {}
    for method in METHODS:
        try:
            found = select_experts(table, phase=phase, limits=Limits(top_k=top_k), method=method)
        except BadInputError as error:
            print(f"{method} is left out: {error}\n")
            continue
        chosen[method] = set(found.experts)
    lines = [f"| | {' | '.join(f'`{name}`' for name in chosen)} |", "|---" * (len(chosen) + 1) + "|"]
    for name, experts in chosen.items():
        lines.append(f"| `{name}` | {' | '.join(str(len(experts & other)) for other in chosen.values())} |")
    n_experts = len(table[table["phase"] == phase])
    return "\n".join(
        [*lines, "", f"By chance: {top_k**2 / n_experts:.1f} of {top_k} (of {n_experts} experts)."]
    )


def check_comparable(runs: Sequence[Path], summaries: Sequence[Summary]) -> None:
    """Refuse runs whose variants did not do the same.

    Raises:
        BadInputError: model, decoding, judge or the base model's figures differ.
    """
    for run, summary in zip(runs, summaries, strict=True):
        for name in ("model", "decoding", "judge"):
            if getattr(summary, name) != getattr(summaries[0], name):
                raise BadInputError(f"{run}: its {name} is not that of {runs[0]}")
        if rates_of_base(summary) != rates_of_base(summaries[0]):
            raise BadInputError(f"{run}: base was measured on other prompts than in {runs[0]}")


def outcomes(summaries: Sequence[Summary], judge: str) -> str:
    """Return what each variant refuses, and how far each method is from the draws, as Markdown."""
    first = summaries[0]
    draws = [name for name in first.variants if name.startswith("random_experts")]
    if len(draws) < FEWEST_DRAWS:
        raise BadInputError(f"the first run has {len(draws)} random draws, expected {FEWEST_DRAWS} or more")
    rows = {"`base`": values(first, "base", judge)}
    for summary in summaries:
        method = summary.selection.method if summary.selection else "none"
        rows[f"`unsafe_experts` by `{method}`"] = values(summary, summary.intervention, judge)
    of_draws = {name: values(first, name, judge) for name in draws}
    rows |= {f"`{name}`": row for name, row in of_draws.items()}
    columns = list(rows["`base`"])
    lines = [
        f"| variant | {' | '.join(f'`{name}`' for name in columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    lines += [f"| {name} | {' | '.join(percent(row[c]) for c in columns)} |" for name, row in rows.items()]
    spread = {c: [row[c] for row in of_draws.values()] for c in columns}
    lines.append(
        "| **draws: mean ± standard deviation** | "
        + " | ".join(
            f"{100 * statistics.mean(spread[c]):.1f} ± {100 * statistics.stdev(spread[c]):.1f}"
            for c in columns
        )
        + " |"
    )
    lines += [
        "",
        "| method against the draws: difference from their mean (p) | "
        + " | ".join(f"`{c}`" for c in columns)
        + " |",
    ]
    lines.append("|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        if name.startswith("`unsafe_experts`"):
            lines.append(f"| {name} | {' | '.join(against(row[c], spread[c]) for c in columns)} |")
    return "\n".join(lines)


def rates_of_base(summary: Summary) -> list[Measurement]:
    """Return base's refusal rates by the primary judge."""
    return [row for row in summary.of("base") if (row.metric, row.judge) == ("refusal_rate", summary.judge)]


def values(summary: Summary, variant: str, judge: str) -> dict[str, float]:
    """Return a variant's rate for each task by a judge, and its score for each capability task.

    Raises:
        BadInputError: there is no figure.
    """
    figures = summary.of(variant)
    rates = [row for row in figures if (row.metric, row.judge) == ("refusal_rate", judge)]
    found = {row.task: row.value for row in [*rates, *(row for row in figures if row.kind == "capability")]}
    if not rates:
        raise BadInputError(f"{variant} was not judged by {judge}: harness evaluate RUN --judge {judge}")
    missing = [task for task, value in found.items() if value is None]
    if missing:
        raise BadInputError(f"{variant} has no figure for {missing[0]}")
    return {task: float(value) for task, value in found.items() if value is not None}


def percent(value: float) -> str:
    """Return a fraction of 1 in per cent."""
    return f"{100 * value:.1f}"


def against(value: float, draws: Sequence[float]) -> str:
    """Return the difference from the draws' mean in points, and how often one more draw would lie as far."""
    n, mean, spread = len(draws), statistics.mean(draws), statistics.stdev(draws)
    difference = f"{100 * (value - mean):+.1f}"
    if spread == 0:
        return difference
    # The mean of n draws is uncertain too: a further draw's distance from it has variance s^2 (1 + 1/n).
    p_value = 2 * stats.t.sf(abs(value - mean) / (spread * (1 + 1 / n) ** 0.5), df=n - 1)
    return f"{difference} ({p_value:.2f})"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders; the first has the random draws")
    parser.add_argument("--top-k", type=int, default=24, help="how many of the top experts to compare")
    parser.add_argument("--phase", default="all")
    parser.add_argument(
        "--judge", default=None, help="whose verdicts; by default the first run's primary judge"
    )
    arguments = parser.parse_args()
    print(overlap(expert_table(arguments.runs), arguments.phase, arguments.top_k))
    summaries = [read_summary(run) for run in arguments.runs]
    check_comparable(arguments.runs, summaries)
    judge = arguments.judge or summaries[0].judge
    print(f"\nJudge: {judge}.\n\n{outcomes(summaries, judge)}")


if __name__ == "__main__":
    main()
