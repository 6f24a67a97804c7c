"""Judge answers by phrases of your own, beside the built-in judge, in a run of this process.

    python examples/add_judge.py OUT

The judge is house_phrases.yaml. One that does more is a class (docs/judges.md, examples/plugin).
"""

from __future__ import annotations

import sys
from pathlib import Path

import harness

PHRASES = Path(__file__).with_name("house_phrases.yaml")


def main(out: Path) -> harness.Run:
    """Make a run with both judges, and show where they differ."""
    run = harness.run(
        "demo",
        output=out,
        judge=["builtin", str(PHRASES)],
        training={"max_steps": 12},
        capability={"tasks": []},
        limit=12,
        baselines=[],
        quiet=True,
    )
    labels = run.verdicts.pivot(index=["variant", "task", "id"], columns="judge", values="label")
    differ = labels[labels["builtin"] != labels["house_phrases"]].reset_index()
    print(f"{len(differ)} of {len(labels)} answers are judged differently")
    texts = run.answers[["variant", "task", "id", "response"]]
    print(differ.merge(texts, on=["variant", "task", "id"]).to_string(max_colwidth=60))
    return run


if __name__ == "__main__":
    main(Path(sys.argv[1]))
