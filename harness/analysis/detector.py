"""How well base's routing tells harmful prompts from benign ones, beside the words of the prompt.

A linear probe (logistic regression on standardised shares of routings) is fitted on some prompts and scores others:
those of held-out tasks, or of held-out topics. The area under the curve is over pairs of a harmful and a benign prompt
that were held out together, since scores of different fits have no common scale.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from harness.base.errors import BadInputError
from harness.data.duplicates import near_duplicate_groups
from harness.metrics.clustered import places_by_group
from harness.metrics.interval import Interval
from harness.routing.counts import summed
from harness.runs.rows import BASE

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.runs.run import Run

Held = Literal["task", "topic"]
_RESAMPLES = 1000
_FOLDS = 5


class Probed(NamedTuple):
    """The area under the curve of both probes, and the first less the second, with intervals over prompts."""

    held_out: Held
    routing: Interval
    words: Interval
    difference: Interval
    harmful: int
    benign: int


def folds_of(
    groups: Sequence[str], harmful: Sequence[bool], held_out: Held, seed: int = 0
) -> list[int] | None:
    """Return the fold of each prompt; a fold has both kinds, and no group is in two folds.

    A kind with a single group (one harmful task) is dealt out prompt by prompt. Groups that both kinds have (topics of
    twins) are dealt out first.

    Args:
        groups: the task or topic of each prompt.
        harmful: whether it is harmful.
        held_out: what the groups are.
        seed: of the deal.

    Returns:
        None where fewer than two folds can be made.
    """
    by_kind = [
        {group for group, bad in zip(groups, harmful, strict=True) if bad is kind} for kind in (True, False)
    ]
    several = [len(kind) for kind in by_kind if len(kind) > 1]
    if not several or (held_out == "topic" and len(several) < 2):
        return None
    n = min(_FOLDS, *several)
    drawing = random.Random(f"{seed} {held_out}")
    folds: dict[str, int] = {}
    for members in (by_kind[0] & by_kind[1], by_kind[0] - by_kind[1], by_kind[1] - by_kind[0]):
        for place, group in enumerate(drawing.sample(sorted(members), len(members))):
            folds[group] = place % n
    single = [kind for kind, members in zip((True, False), by_kind, strict=True) if len(members) == 1]
    dealt = [
        drawing.randrange(n) if bad in single else folds[group]
        for group, bad in zip(groups, harmful, strict=True)
    ]
    cells = set(zip(dealt, harmful, strict=True))
    return dealt if len(cells) == 2 * n else None


def area(
    scores: npt.NDArray[np.float64], harmful: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Return the weight of the pairs whose harmful prompt scores higher (ties count half), and that of all pairs."""
    above = scores[harmful][:, None] - scores[~harmful][None]
    pairs = weights[harmful][:, None] * weights[~harmful][None]
    return float((pairs * ((above > 0) + (above == 0) / 2)).sum()), float(pairs.sum())


def _grouped(
    places: npt.NDArray[np.signedinteger], alike: npt.NDArray[np.signedinteger]
) -> tuple[npt.NDArray[np.signedinteger], npt.NDArray[np.signedinteger], int]:
    """Return places group by group, the number of each one's group of near-duplicates, and the number of groups."""
    groups = places_by_group(alike[places].tolist())
    number = np.repeat(np.arange(len(groups)), [len(own) for own in groups])
    return places[[place for own in groups for place in own]], number, len(groups)


def probe(
    routing: npt.NDArray[np.float64],
    texts: Sequence[str],
    harmful: Sequence[bool],
    groups: Sequence[str],
    held_out: Held,
    seed: int = 0,
) -> Probed | None:
    """Fit and score both probes; intervals resample prompts, near-duplicates together.

    Args:
        routing: shares of routings, one row per prompt.
        texts: the prompts.
        harmful: whether each is harmful.
        groups: the task or topic of each.
        held_out: what the groups are.
        seed: of folds and resamples.

    Returns:
        None where the groups make no two folds.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    dealt = folds_of(groups, harmful, held_out, seed)
    if dealt is None:
        return None
    label, fold = np.array(harmful, dtype=bool), np.array(dealt)
    scores = np.zeros((2, len(label)))
    for k in range(fold.max() + 1):
        rest, here = fold != k, fold == k
        if len(set(label[rest].tolist())) < 2:
            return None
        by_routing = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        by_words = make_pipeline(
            TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10.0, max_iter=1000)
        )
        scores[0, here] = by_routing.fit(routing[rest], label[rest]).decision_function(routing[here])
        known = [text for text, own in zip(texts, rest.tolist(), strict=True) if own]
        asked = [text for text, own in zip(texts, here.tolist(), strict=True) if own]
        scores[1, here] = by_words.fit(known, label[rest]).decision_function(asked)
    drawing = np.random.default_rng(seed)
    alike = near_duplicate_groups(texts)
    cells = [
        _grouped(np.flatnonzero((fold == k) & (label == kind)), alike)
        for k in range(fold.max() + 1)
        for kind in (True, False)
    ]

    def areas(weights: npt.NDArray[np.float64]) -> list[float]:
        found = []
        for own in scores:
            parts = [
                area(own[fold == k], label[fold == k], weights[fold == k]) for k in range(fold.max() + 1)
            ]
            found.append(sum(won for won, _ in parts) / sum(pairs for _, pairs in parts))
        return [*found, found[0] - found[1]]

    values, drawn = areas(np.ones(len(label))), []
    for _ in range(_RESAMPLES):
        weights = np.zeros(len(label))
        for own, group, n in cells:
            weights[own] = drawing.multinomial(n, np.full(n, 1 / n))[group]
        drawn.append(areas(weights))
    ends = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    routed, words, difference = (
        Interval(value=value, low=min(float(low), value), high=max(float(high), value))
        for value, low, high in zip(values, *ends, strict=True)
    )
    return Probed(held_out, routed, words, difference, int(label.sum()), int((~label).sum()))


def detect(run: Run) -> list[Probed]:
    """Return how well base's routing of test prompts (phase `prompt`) tells them apart, held out by task and by topic.

    Raises:
        BadInputError: base's routing on test prompts was not captured for both kinds, or no folds can be made.
    """
    rows: list[tuple[str, bool, str, str | None, npt.NDArray[np.float64]]] = []
    for task in run.record.tasks:
        counts = run.test_routing(task.name)
        if counts is None:
            continue
        answers = {answer.id: answer for answer in run.answers(BASE, task.name)}
        counts = summed(counts, {id: answers[id].prompt_id for id in counts.ids})
        texts = {answer.prompt_id: answer.prompt for answer in answers.values()}
        used, tokens = counts.of("prompt")
        shares = used.reshape(len(tokens), -1) / tokens[:, None]
        topics = run.splits.tasks[task.name].categories
        rows += [
            (texts[id], task.kind == "harmful", task.name, topics.get(id), share)
            for id, share in zip(counts.ids, shares, strict=True)
        ]
    if {harmful for _, harmful, *_ in rows} != {True, False}:
        raise BadInputError("base's routing on test prompts of both kinds was not captured")
    with_topic = [row for row in rows if row[3]]
    ways: list[tuple[Held, list[str]]] = [
        ("task", [row[2] for row in rows]),
        ("topic", [row[3] or "" for row in with_topic]),
    ]
    known = []
    for held_out, groups in ways:
        some = rows if held_out == "task" else with_topic
        shares = np.array([row[4] for row in some])
        texts_of, kinds = [row[0] for row in some], [row[1] for row in some]
        found = probe(shares, texts_of, kinds, groups, held_out, run.record.seeds.get("splits", 0))
        known += [] if found is None else [found]
    if not known:
        raise BadInputError("neither tasks nor topics make two folds that hold both kinds")
    return known
