"""Select experts by a score of your own, in a run of this process.

    python examples/add_method.py OUT

To use a method on the command line too, put it into a package (examples/plugin).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import harness
from harness.experts.select import METHODS

if TYPE_CHECKING:
    import pandas as pd


@METHODS.register("rarely_safe")
def rarely_safe(table: pd.DataFrame) -> pd.Series:
    """Score the rows of one phase of the expert table: the ratio of use on harmful and on benign prompts."""
    return (table["a_unsafe_n"] + 0.01) / (table["a_safe_n"] + 0.01)


def main(out: Path) -> harness.Run:
    """Train the experts that score highest, beside those that the default method finds."""
    run = harness.run(
        "demo",
        output=out,
        selection={"method": "rarely_safe", "top_k": 8},
        training={"max_steps": 4},
        capability={"tasks": []},
        limit=12,
        baselines=[],
        quiet=True,
    )
    print(run.headline)
    chosen = run.files.selection("unsafe_experts")
    assert chosen is not None
    ranks = run.experts[run.experts["phase"] == chosen.phase].copy()
    ranks["rank by risk_diff"] = ranks["risk_diff"].rank(ascending=False).astype(int)
    print(ranks.set_index(["layer", "expert"]).loc[list(chosen.experts), ["risk_diff", "rank by risk_diff"]])
    return run


if __name__ == "__main__":
    main(Path(sys.argv[1]))
