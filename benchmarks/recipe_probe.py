"""Can the model tell harmful prompts from benign ones that look alike, before anything is trained?

    python benchmarks/recipe_probe.py OUT --data-dir DATA [--csv FOLDER]

A logistic regression on base's hidden states at the last token before its answer, at every third layer. Three sets are
scored by probes that saw other prompts of the same set: JailbreakBench by pair, XSTest by type, AdvBench beside
Alpaca by near-duplicates (ten folds of whole groups). `transfer` is what a recipe has to do: one probe on the train
prompts, JailbreakBench's pairs and look-alikes included, scores the test prompts. AUC with a 95 % interval over groups
(200 bootstraps), and the false positives where 90 % of harmful prompts are found.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from recipe_tables import markdown
from recipes import LIMIT, TASKS
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from trials import add_arguments, plan_of

from harness.data.duplicates import near_duplicate_groups
from harness.data.prompts import Prompt
from harness.models.chat import ChatTemplate
from harness.models.load import LoadedModel, load_model, quiet_transformers

PAIRS = ("jbb_harmful", "jbb_benign")
# Every third layer shows the course.
EVERY = 3
BATCH, BOOTSTRAPS, FOLDS, FOUND = 32, 200, 10, 0.9


class Labelled(NamedTuple):
    """Prompts to tell apart.

    Attributes:
        states: of each prompt and layer, [N, L + 1, H].
        harmful: [N].
        groups: of prompts that stay on one side of a fold, [N].
    """

    states: np.ndarray
    harmful: np.ndarray
    groups: np.ndarray


def main() -> None:
    """Probe, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    quiet_transformers()
    arguments.model, arguments.tasks = "smol-moe", arguments.tasks or TASKS
    plan = plan_of(arguments, {"baselines": [], "capability.tasks": []}, [LIMIT, "split_seed=0"])
    splits = plan.splits.prompts
    train, test = ([p for roles in splits.values() for p in roles[role]] for role in ("train", "test"))
    pairs = [p for prompts in plan.sets if prompts.spec.name in PAIRS for p in prompts.prompts]
    xstest = [p for p in test if p.task.startswith("xstest")]
    every = list({(p.task, p.id): p for p in [*train, *pairs, *xstest]}.values())
    keys = [(p.task, p.id) for p in every]
    found = dict(zip(keys, states(load_model(plan.ref, "auto", "auto"), every), strict=True))

    def labelled(prompts: Sequence[Prompt], groups: Sequence[Any] | None = None) -> Labelled:
        groups = near_duplicate_groups([p.text for p in prompts]).tolist() if groups is None else groups
        kept = np.stack([found[p.task, p.id] for p in prompts])
        return Labelled(kept, np.array([p.kind == "harmful" for p in prompts]), np.array(groups))

    def types(prompts: Sequence[Prompt]) -> list[str]:
        return [str(p.category).removeprefix("contrast_") for p in prompts]

    sets = {
        "AdvBench beside Alpaca": labelled([p for p in train if p.task in ("advbench", "alpaca")]),
        "JailbreakBench": labelled(pairs, [p.pair for p in pairs]),
        "XSTest": labelled(xstest, types(xstest)),
    }
    unseen = [p for p in test if p.task in PAIRS]
    transfer = {
        "transfer to JailbreakBench": labelled(unseen, [p.pair for p in unseen]),
        "transfer to XSTest": sets["XSTest"],
    }
    learnt, rows = labelled(train), []
    for layer in range(0, learnt.states.shape[1], EVERY):
        for name, data in sets.items():
            rows.append({"set": name, "layer": layer, **figures(out_of_fold(data, layer), data)})
        model = probe().fit(learnt.states[:, layer], learnt.harmful)
        for name, data in transfer.items():
            scores = model.decision_function(data.states[:, layer])
            rows.append({"set": name, "layer": layer, **figures(scores, data)})
    table = pd.DataFrame(rows)
    if arguments.csv:
        table.to_csv(arguments.csv / "recipe-probe.csv", index=False, float_format="%.4f")
    best = table.loc[table.groupby("set", sort=False)["auc"].idxmax()]
    print(f"the best layer of each set\n\n{markdown(best)}\n\nlast layer\n")
    print(markdown(table[table["layer"] == table["layer"].max()]))


def states(loaded: LoadedModel, prompts: Sequence[Prompt]) -> np.ndarray:
    """Return the hidden states at the last token of each rendered prompt, [N, L + 1, H]."""
    tokens = ChatTemplate(loaded.tokenizer).tokens([prompt.asked for prompt in prompts])
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    found: dict[int, np.ndarray] = {}
    for at in range(0, len(order), BATCH):
        part = order[at : at + BATCH]
        batch = loaded.tokenizer.pad(
            {"input_ids": [tokens[i] for i in part]}, padding_side="left", return_tensors="pt"
        ).to(loaded.device)
        with torch.inference_mode():
            out = loaded.moe.model.base_model(**batch, output_hidden_states=True, use_cache=False)
        last = torch.stack([layer[:, -1] for layer in out.hidden_states], dim=1).float().cpu().numpy()
        found |= dict(zip(part, last, strict=True))
    return np.stack([found[i] for i in range(len(tokens))])


def probe() -> Pipeline:
    """Return the classifier: 576 numbers of some hundred prompts need a strong penalty."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))


def out_of_fold(data: Labelled, layer: int) -> np.ndarray:
    """Return each prompt's score by a probe that saw nothing of its group."""
    scores = np.zeros(len(data.harmful))
    features = data.states[:, layer]
    folds = GroupKFold(min(FOLDS, len(set(data.groups))), shuffle=True, random_state=0)
    for seen, unseen in folds.split(features, data.harmful, data.groups):
        model = probe().fit(features[seen], data.harmful[seen])
        scores[unseen] = model.decision_function(features[unseen])
    return scores


def figures(scores: np.ndarray, data: Labelled) -> dict[str, float]:
    """Return the AUC with its interval over groups, and false positives where 90 % of harmful prompts are found."""
    members = [np.flatnonzero(data.groups == group) for group in dict.fromkeys(data.groups.tolist())]
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(BOOTSTRAPS):
        drawn = np.concatenate([members[i] for i in generator.integers(len(members), size=len(members))])
        if 0 < data.harmful[drawn].sum() < len(drawn):
            draws.append(roc_auc_score(data.harmful[drawn], scores[drawn]))
    low, high = np.quantile(draws, [0.025, 0.975])
    threshold = np.quantile(scores[data.harmful], 1 - FOUND)
    return {
        "auc": float(roc_auc_score(data.harmful, scores)), "low": float(low), "high": float(high),
        "false_positives": float((scores[~data.harmful] >= threshold).mean()), "prompts": len(scores),
    }  # fmt: skip


if __name__ == "__main__":
    main()
