"""Train the built-in judge: `python -m tools.train_builtin_judge --data DIR`.

DIR holds copies of public sets (docs/judge-rules.md names them and their licences). Three classifiers are trained: one
on everything, which judges, and one without each model family, which judges that family's labelled answers
when the judge is measured. Settings are chosen by cross-validation over categories of prompts, inside the
training answers alone: no answer of a held-out family takes part in any choice.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from harness.base.files import write_json, write_whole
from harness.data.refusals import fill, refusal_phrasings
from harness.data.tables import read_table
from harness.judges.builtin.features import BUCKETS, buckets, opening_features, scale, shape_features
from harness.judges.builtin.judge import EVERYTHING, FOLDER, SETTINGS, WEIGHTS, answer_key, head_without
from harness.judges.labels import read_labels
from harness.judges.reading import Reading, read

FAMILIES = {"llama2new": "Llama-2", "llama2orig": "Llama-2", "mistralinstruct": "Mistral"}
# Our own: short, first-person, negative or apologetic answers that decline nothing, and answers that decline by
# disagreeing or lecturing, in which no rule finds anything.
ORDINARY, DECLINING = FOLDER / "ordinary.tsv", FOLDER / "declining.tsv"
SEED = 0
FOLDS = 5
GRID = tuple(itertools.product((1, 2), (300, 600), (3.0, 30.0)))
# The weight of an answer that nobody labelled, beside one that people did: it steadies, it does not decide.
WEIGHT_OF_UNLABELLED = 0.2
# A feature must occur under so many categories of prompts, or its weight is 0: others are about a topic.
FEWEST_CATEGORIES = 3
_TOPICS = ("fraud", "making dangerous substances", "breaking into computers")


class Settings(NamedTuple):
    """What is chosen by cross-validation.

    Attributes:
        order: the longest n-gram, in words.
        characters: how much of an answer is read.
        inverse_penalty: C of the logistic regression.
    """

    order: int
    characters: int
    inverse_penalty: float


class Example(NamedTuple):
    """One training answer; `family` and `category` are "" for answers that nobody labelled one by one."""

    prompt: str
    response: str
    label: str
    family: str
    category: str


def read_examples(data: Path) -> list[Example]:
    """Return all training answers: XSTest's labelled ones, then others whose label follows from what they are."""
    files = sorted((data / "xstest" / "labelled").glob("*.csv"))
    labelled = [
        Example(
            row.prompt, row.response, row.label, FAMILIES[row.model], row.category.removeprefix("contrast_")
        )
        for row in read_labels(files)
    ]

    def pairs(file: str, prompt: str, response: str) -> list[list[str]]:
        return [[row[prompt], row[response]] for row in read_table(data / file)]

    truthful = pairs("truthfulqa/TruthfulQA.csv", "Question", "Best Answer")
    agreeing = [
        *pairs("advbench/harmful_behaviors.csv", "goal", "target"),
        *pairs("jailbreakbench/harmful-behaviors.csv", "Goal", "Target"),
        *pairs("jailbreakbench/benign-behaviors.csv", "Goal", "Target"),
        *([prompt, response] for prompt, response in truthful if "no comment" not in response.lower()),
        *pairs("gsm8k/test.jsonl", "question", "answer")[:200],
        *_own(ORDINARY),
    ]
    declining = [
        *_own(DECLINING),
        *(
            [f"Tell me about {topic}.", fill(phrasing, topic)]
            for phrasing in refusal_phrasings()
            for topic in _TOPICS
        ),
    ]
    return [
        *labelled,
        *(Example(prompt, response, "compliance", "", "") for prompt, response in agreeing),
        *(Example(prompt, response, "refusal", "", "") for prompt, response in declining),
    ]


def _own(file: Path) -> list[list[str]]:
    return [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]


def train(examples: Sequence[Example]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Train all classifiers and return tensors and settings, as they are stored."""
    families = sorted({example.family for example in examples} - {""})
    tensors: dict[str, NDArray[Any]] = {}
    heads = {}
    for family in (None, *families):
        kept = [example for example in examples if family is None or example.family != family]
        name = EVERYTHING if family is None else head_without(family)
        settings, accuracy = choose(kept)
        weights, heads[name] = fit(kept, settings)
        heads[name] |= {"settings": settings._asdict(), "accuracy_in_training_families": round(accuracy, 4)}
        tensors |= {f"{name}.{what}": values for what, values in weights.items()}
        print(f"{name}: {settings}, accuracy across categories {accuracy:.3f}", flush=True)
    for place, family in enumerate(families):
        keys = {answer_key(example.response) for example in examples if example.family == family}
        tensors[f"answers.{place}"] = np.array(sorted(keys), dtype=np.int64)
    return tensors, {"families": families, "seed": SEED, "buckets": BUCKETS, "heads": heads}


def choose(examples: Sequence[Example]) -> tuple[Settings, float]:
    """Return the settings with the best accuracy on categories of prompts not trained on, and that accuracy."""
    two = [example for example in examples if example.label != "partial refusal"]
    categories = sorted({example.category for example in two} - {""})
    place = np.array([categories.index(e.category) % FOLDS if e.category else -1 for e in two])
    truth, rules, others = _is_refusal(two), _rules(two), _rules(two, "compliance")
    tried: list[tuple[float, Settings]] = []
    for order, characters, penalty in GRID:
        matrix = _matrix(two, characters, order)
        scores = np.zeros(len(two))
        for fold in range(FOLDS):
            test, rest = place == fold, place != fold
            kept = list(itertools.compress(two, rest))
            keep = _wide_enough(matrix[rest], kept)
            counts = _counts(kept, truth[rest])
            weights, intercept = _logistic(matrix[rest][:, keep], truth[rest], penalty, counts)
            scores[test] = matrix[test][:, keep] @ weights + intercept
        accuracy = float(((((scores > 0) | rules) & ~others) == truth)[place >= 0].mean())
        tried.append((accuracy, Settings(order, characters, penalty)))
    accuracy, settings = max(tried, key=lambda row: row[0])
    return settings, accuracy


def fit(examples: Sequence[Example], settings: Settings) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Train both classifiers of one head; return their weights and what else inference needs."""
    two = [example for example in examples if example.label != "partial refusal"]
    matrix = _matrix(two, settings.characters, settings.order)
    keep = _wide_enough(matrix, two)
    truth, rules = _is_refusal(two), _rules(two)
    refusal = np.zeros(BUCKETS)
    refusal[keep], intercept = _logistic(
        matrix[:, keep], truth, settings.inverse_penalty, _counts(two, truth)
    )
    labelled = [example for example in examples if example.family]
    shaped = _matrix(labelled, settings.characters, settings.order, with_shape=True)
    is_partial = np.array([example.label == "partial refusal" for example in labelled])
    partial, partial_intercept = _logistic(shaped, is_partial, settings.inverse_penalty)
    # One answer is added to each count, so that no rule is ever quite certain.
    hits = (rules[truth].sum() + 1) / (truth.sum() + 2)
    false_hits = (rules[~truth].sum() + 1) / ((~truth).sum() + 2)
    return (
        {"refusal": refusal.astype(np.float16), "partial": partial.astype(np.float16)},
        {
            "intercepts": [intercept, partial_intercept],
            "characters": settings.characters,
            "order": settings.order,
            "rule_precision": round(float(hits / (hits + false_hits)), 4),
        },
    )


def _logistic(
    matrix: csr_matrix,
    truth: NDArray[np.bool_],
    inverse_penalty: float,
    counts: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], float]:
    model = LogisticRegression(C=inverse_penalty, max_iter=3_000, random_state=SEED)
    model.fit(matrix, truth, sample_weight=counts)
    return model.coef_[0], float(model.intercept_[0])


def _counts(examples: Sequence[Example], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each answer's weight: labelled refusals weigh as much in all as labelled compliances, others little."""
    labelled = np.array([bool(example.family) for example in examples])
    share = truth[labelled].mean()
    balanced = np.where(truth, 0.5 / share, 0.5 / (1 - share))
    return np.where(labelled, balanced, WEIGHT_OF_UNLABELLED)


def _matrix(examples: Sequence[Example], characters: int, order: int, with_shape: bool = False) -> csr_matrix:
    """Return the answers' features as rows of length 1, [answers, buckets]."""
    rows = []
    for example in examples:
        features = opening_features(example.prompt, _read(example.response).text, characters, order)
        if with_shape:
            features += shape_features(example.response, _read(example.response).label == "refusal")
        rows.append(buckets(features))
    sizes = np.array([len(row) for row in rows])
    ends = np.concatenate([[0], np.cumsum(sizes)])
    values = np.repeat(scale(sizes), sizes)
    return csr_matrix((values, np.concatenate(rows), ends), shape=(len(rows), BUCKETS))


def _wide_enough(matrix: csr_matrix, examples: Sequence[Example]) -> NDArray[np.int64]:
    """Return the buckets that occur under enough categories of prompts, ascending."""
    categories = np.array([example.category for example in examples])
    seen = np.zeros(BUCKETS, dtype=np.int64)
    for category in set(categories):
        seen += np.asarray(matrix[categories == category].sum(axis=0)).ravel() > 0
    return np.flatnonzero(seen >= FEWEST_CATEGORIES)


def _is_refusal(examples: Sequence[Example]) -> NDArray[np.bool_]:
    return np.array([example.label == "refusal" for example in examples])


def _rules(examples: Sequence[Example], label: str = "refusal") -> NDArray[np.bool_]:
    return np.array([_read(example.response).label == label for example in examples])


@cache
def _read(response: str) -> Reading:
    return read(response)


def main() -> None:
    """Train and store."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with copies of the public sets")
    parser.add_argument("--output", type=Path, default=FOLDER, help="where the weights go")
    arguments = parser.parse_args()
    tensors, settings = train(read_examples(arguments.data))
    write_whole(arguments.output / WEIGHTS, lambda path: save_file(tensors, path))
    write_json(arguments.output / SETTINGS, settings)


if __name__ == "__main__":
    main()
