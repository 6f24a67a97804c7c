"""Choose training settings on a held-out part of the train split; the test split plays no part.

A quarter of the train prompts of each task is held out. Each candidate trains the selected experts on the rest
and answers the held-out prompts; the table shows refusal on the harmful and false refusal on the benign ones.

    python benchmarks/choose_settings.py OUT --model smol-moe --data-dir DATA --limit 150 \
        --try "learning_rate=1e-3 epochs=2" --try "learning_rate=3e-4 epochs=3"
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from pathlib import Path

from harness.config import make_config
from harness.data.prompts import Prompt
from harness.data.splits import Splits
from harness.interventions.apply import active
from harness.judges.base import judge_all
from harness.metrics.rates import refusal_rate
from harness.models.load import quiet_transformers
from harness.run import pipeline
from harness.run.plan import Plan, make_plan
from harness.run.selecting import select
from harness.run.session import Session
from harness.run.training import train, training_conversations

HELD_OUT = 0.25


def is_held_out(prompt: Prompt) -> bool:
    """Matched pairs share their side."""
    key = hashlib.sha256(f"held out {prompt.pair or prompt.id}".encode()).digest()
    return int.from_bytes(key[:4], "big") / 2**32 < HELD_OUT


def with_held_out_as_test(plan: Plan) -> Plan:
    """Return the plan with the held-out train prompts in place of the test prompts."""
    prompts = {
        task: {
            "identify": list(roles["identify"]),
            "train": [prompt for prompt in roles["train"] if not is_held_out(prompt)],
            "test": [prompt for prompt in roles["train"] if is_held_out(prompt)],
        }
        for task, roles in plan.splits.prompts.items()
    }
    splits: Splits = dataclasses.replace(plan.splits, prompts=prompts)
    return dataclasses.replace(plan, splits=splits)


def main() -> None:
    """Try every candidate and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tasks", default=None)
    parser.add_argument("--data-dir", type=Path, action="append", default=[])
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--set", action="append", default=[], help="settings of all candidates")
    parser.add_argument("--show", action="store_true", help="also print the benign prompts that were refused")
    parser.add_argument("--try", dest="candidates", action="append", required=True)
    arguments = parser.parse_args()
    quiet_transformers()
    flags = {"model": arguments.model, "data_dir": arguments.data_dir, "capability.tasks": []}
    if arguments.limit:
        flags["limit"] = arguments.limit
    if arguments.tasks:
        flags["tasks"] = arguments.tasks.split(",")
    kinds: dict[str, str] = {}
    for number, candidate in enumerate(arguments.candidates):
        named = [item if "." in item.split("=")[0] else f"training.{item}" for item in candidate.split()]
        plan = with_held_out_as_test(make_plan(make_config(flags, None, [*arguments.set, *named])))
        # One folder for all candidates: capture and own answers are the same and done once.
        session: Session = pipeline.start(plan, arguments.out)
        kinds |= {prompt_set.spec.name: prompt_set.spec.kind for prompt_set in plan.sets}
        selections = select(session)
        conversations = training_conversations(session)
        variant = plan.intervention
        started = time.perf_counter()
        delta = train(session, variant, selections[variant.name], conversations)
        seconds = time.perf_counter() - started
        loss = json.loads((session.folder.variant(variant.name) / "train.jsonl").read_text().splitlines()[-1])
        cells, refused = [], []
        with active(variant, session.loaded.moe, selections[variant.name], delta):
            for task, prompts in plan.prompts("test").items():
                if not prompts:
                    continue
                batches = session.engine.batches(prompts)
                tokens = plan.max_new_tokens(task)
                answers = [r for b in session.engine.generate(batches, tokens) for r in b.responses]
                verdicts = judge_all(plan.judge, [answer.row() for answer in answers])
                rate = refusal_rate([verdict.label for verdict in verdicts])
                cells.append(f"{task} ({kinds[task]}) {rate.value:.3f} of {rate.scored}")
                if kinds[task] == "benign":
                    refused += [
                        f"  {task}: {answer.prompt[:110]!r} -> {answer.response[:60]!r}"
                        for answer, verdict in zip(answers, verdicts, strict=True)
                        if verdict.label == "refusal"
                    ]
        print(
            f"{number} | {candidate} | {len(conversations)} examples, {loss['step']} steps, "
            f"last loss {loss['loss']:.3f}, {seconds:.0f} s | {' | '.join(cells)}",
            flush=True,
        )
        if arguments.show:
            print("\n".join(refused), flush=True)


if __name__ == "__main__":
    main()
