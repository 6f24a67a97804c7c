"""Read a finished run in pandas: rates, flipped prompts, the experts behind them.

python examples/pandas_run.py RUN
"""

from __future__ import annotations

import sys
from pathlib import Path

import harness


def main(path: Path) -> None:
    """Print three tables of a run."""
    run = harness.open(path)
    print(run.headline)

    rates = run.measurements.query("metric == 'refusal_rate' and judge == @run.summary.judge")
    print((100 * rates.pivot(index="variant", columns="task", values="value")).round(1).to_string())

    own = run.verdicts[run.verdicts["judge"] == run.summary.judge]
    labels = own.pivot(index=["task", "id"], columns="variant", values="label")
    name = run.summary.intervention
    flipped = labels[labels["base"] != labels[name]].reset_index()
    prompts = run.answers.query("variant == 'base'")[["task", "id", "prompt"]]
    print(f"\n{len(flipped)} verdicts differ between base and {name}:")
    print(flipped[["task", "id", "base", name]].merge(prompts).head(10).to_string(max_colwidth=50))

    selection = run.files.selection(name)
    if selection is not None:
        table = run.experts[run.experts["phase"] == selection.phase].set_index(["layer", "expert"])
        columns = ["risk_diff", "low", "high", "q_value"]
        print(f"\nThe experts of {name}, by risk difference in phase {selection.phase}:")
        print(
            table.loc[list(selection.experts), columns].sort_values("risk_diff", ascending=False).to_string()
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
