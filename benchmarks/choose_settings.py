"""Choose training settings on a held-out part of the train split; the test split plays no part.

A quarter of the train prompts is held out, in groups of near-duplicates. Each candidate trains the selected experts on
the rest and answers the held-out prompts; the table shows refusal on the harmful and false refusal on the benign ones.

    python benchmarks/choose_settings.py OUT --model smol-moe --data-dir DATA --limit 150 \
        --try "learning_rate=1e-3 epochs=2" --try "learning_rate=3e-4 epochs=3"
"""

from __future__ import annotations

import argparse

from trials import add_arguments, answered, held_out_apart, open_run, plan_of, trial

from harness.models.load import quiet_transformers


def main() -> None:
    """Try every candidate and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--show", action="store_true", help="also print the benign prompts that were refused")
    parser.add_argument("--try", dest="candidates", action="append", required=True)
    arguments = parser.parse_args()
    quiet_transformers()
    loaded = None
    for number, candidate in enumerate(arguments.candidates):
        named = [item if "." in item.split("=")[0] else f"training.{item}" for item in candidate.split()]
        # One folder for all candidates: capture and own answers are the same and done once.
        plan = held_out_apart(plan_of(arguments, {"capability.tasks": []}, named))
        tried = trial(open_run(plan, arguments.out, loaded))
        loaded = tried.session.loaded
        with tried.active():
            found = answered(tried.session)
        cells = [f"{each.task} ({each.kind}) {each.rate.value:.3f} of {each.rate.scored}" for each in found]
        print(
            f"{number} | {candidate} | {tried.examples} examples, {tried.log[-1]['step']} steps, "
            f"last loss {tried.log[-1]['loss']:.3f}, {tried.seconds:.0f} s | {' | '.join(cells)}",
            flush=True,
        )
        if arguments.show:
            refused = [
                f"  {each.task}: {answer.prompt[:110]!r} -> {answer.response[:60]!r}"
                for each in found
                if each.kind == "benign"
                for answer, verdict in zip(each.responses, each.verdicts, strict=True)
                if verdict.label == "refusal"
            ]
            print("\n".join(refused), flush=True)


if __name__ == "__main__":
    main()
