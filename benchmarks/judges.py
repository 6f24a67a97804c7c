"""Judges beside people's labels: `python benchmarks/judges.py --data DIR [--strict]`.

Prints docs/results/judges.md's tables: every judge on XSTest's labelled answers, `builtin` always as trained
without the model family that it judges; what the judges say of answers that decline nothing; and time. With
`--strict`, the classifier is trained anew without the family *and* the category of prompts it is tested on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from harness.base.files import read_json
from harness.data.duplicates import near_duplicate_groups
from harness.data.tables import read_table
from harness.judges.base import JUDGES
from harness.judges.builtin.judge import FOLDER, SETTINGS, BuiltinJudge, head_without, make_head
from harness.judges.evaluate import evaluate_judge
from harness.judges.labels import Labelled, read_labels
from harness.judges.prompts import prompts_of
from harness.metrics.clustered import clustered_test
from harness.metrics.interval import Interval
from harness.metrics.judged import confusion, figures
from tools.train_builtin_judge import FAMILIES, FOLDS, Settings, fit, read_examples

# Those that ask no server and no model of their own.
_NAMES = [name for name in JUDGES if name == "builtin" or name.startswith("keyword")]


def compare(rows: Sequence[Labelled], files: Sequence[Path]) -> None:
    """Print every judge's figures, in the order of accuracy."""
    cards = [evaluate_judge(JUDGES.get(name)(), rows, files) for name in _NAMES]
    models = list(cards[0].by_model)
    print(f"| judge | all | {' | '.join(models)} | sensitivity | specificity | kappa | three labels |")
    print("|---" * (len(models) + 6) + "|")
    for card in sorted(cards, key=lambda card: -(card.all.accuracy.value if card.all.accuracy else 0)):
        of_models = (_show(card.by_model[model].accuracy) for model in models)
        others = (card.all.sensitivity, card.all.specificity, card.all.kappa, card.partial.three_labels)
        print(
            f"| `{card.judge}` | {_show(card.all.accuracy)} | {' | '.join([*of_models, *map(_show, others)])} |"
        )


def against_builtin(rows: Sequence[Labelled]) -> None:
    """Print the test of `builtin` against every other judge on the same answers, over prompts."""
    builtin = BuiltinJudge()
    two = [row for row in rows if row.label != "partial refusal"]
    prompts = prompts_of(two)
    right = [
        builtin.unseen(row.response).judge("", row.prompt, row.response).label == row.label for row in two
    ]
    print(
        f"\n| `builtin` against | only `builtin` right | only the other right | p (t, {len(set(prompts))} prompts) |"
        "\n|---|---|---|---|"
    )
    for name in _NAMES:
        if name != builtin.name:
            judge = JUDGES.get(name)()
            theirs = [judge.judge("", row.prompt, row.response).label == row.label for row in two]
            lead = [a - b for a, b in zip(right, theirs, strict=True)]
            tested = clustered_test(lead, prompts)
            p = "" if tested is None else f"{tested.p_value:.2g}"
            print(f"| `{name}` | {lead.count(1)} | {lead.count(-1)} | {p} |")


def strict(data: Path) -> None:
    """Print `builtin`'s accuracy where neither the family nor the category of prompts was trained on."""
    examples = read_examples(data)
    heads = read_json(FOLDER / SETTINGS)["heads"]
    categories = sorted({example.category for example in examples} - {""})
    fold = {category: place % FOLDS for place, category in enumerate(categories)}
    texts = list(dict.fromkeys(example.prompt for example in examples))
    alike = dict(zip(texts, near_duplicate_groups(texts).tolist(), strict=True))
    verdicts, labels, prompts = [], [], []
    for family in dict.fromkeys(FAMILIES.values()):
        settings = Settings(**heads[head_without(family)]["settings"])
        for number in range(FOLDS):
            kept = [e for e in examples if e.family != family and fold.get(e.category) != number]
            weights, found = fit(kept, settings)
            judge = BuiltinJudge(make_head(weights["refusal"], weights["partial"], found))
            for e in examples:
                if e.family == family and fold[e.category] == number and e.label != "partial refusal":
                    verdicts.append(judge.judge("", e.prompt, e.response).label)
                    labels.append(e.label)
                    prompts.append(alike[e.prompt])
    accuracy = figures(verdicts, labels, prompts).accuracy
    print("\nFamily and category held out:", _show(accuracy), confusion(verdicts, labels))


def ordinary(data: Path) -> None:
    """Print how often each judge takes answers of Alpaca's two files, which decline next to nothing, for refusals."""
    print("\n| judge | answers | called refusals | unscored | ms an answer |\n|---|---|---|---|---|")
    rows = [
        row
        for name in ("alpaca_2k", "alpaca_demo_999")
        for row in read_table(data / "alpaca" / f"{name}.json")
    ]
    for name in _NAMES:
        judge = JUDGES.get(name)()
        judge.judge("", "", "Some words to load the weights.")
        started = time.process_time()
        said = [judge.judge("", f"{row['instruction']} {row['input']}", row["output"]).label for row in rows]
        spent = (time.process_time() - started) / len(rows) * 1e3
        print(f"| `{name}` | {len(said)} | {said.count('refusal')} | {said.count(None)} | {spent:.2f} |")


def _show(figure: Interval | None) -> str:
    return "" if figure is None else f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with copies of the public sets")
    parser.add_argument(
        "--strict", action="store_true", help="also hold categories of prompts out (a minute)"
    )
    arguments = parser.parse_args()
    files = sorted((arguments.data / "xstest" / "labelled").glob("*.csv"))
    rows = read_labels(files)
    compare(rows, files)
    against_builtin(rows)
    ordinary(arguments.data)
    if arguments.strict:
        strict(arguments.data)


if __name__ == "__main__":
    main()
