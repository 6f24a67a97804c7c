"""How far judges agree on the same answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from harness.metrics.rates import AnyLabel

Labels = Mapping[str, AnyLabel | None]


class Agreement(NamedTuple):
    """Agreement of two or more judges.

    Attributes:
        n: answers that two judges or more gave a verdict on.
        kappa: Cohen's, of two judges on what both scored; None for more judges, or where neither uses both labels.
        alpha: Krippendorff's, which takes any number of judges and answers that some left unscored; None where
            it is undefined, as where all verdicts are one label.
        differ: the answers on which they do not all say the same, in order.
    """

    n: int
    kappa: float | None
    alpha: float | None
    differ: list[str]


def agreement(verdicts: Mapping[str, Labels]) -> Agreement:
    """Return how far judges agree.

    Args:
        verdicts: each judge's label by answer, None where unscored; all judges were shown the same answers.

    Raises:
        ValueError: fewer than two judges, or judges that were not shown the same answers.
    """
    judges = list(verdicts)
    if len(judges) < 2:
        raise ValueError("agreement takes two judges or more")
    first = verdicts[judges[0]]
    if any(verdicts[name].keys() != first.keys() for name in judges):
        raise ValueError("the judges were not shown the same answers")
    given = {id: [label for name in judges if (label := verdicts[name][id]) is not None] for id in first}
    compared = {id: labels for id, labels in given.items() if len(labels) > 1}
    return Agreement(
        n=len(compared),
        kappa=_kappa(compared) if len(judges) == 2 else None,
        alpha=_alpha(verdicts, set(compared)),
        differ=[id for id, labels in compared.items() if len(set(labels)) > 1],
    )


def majority(verdicts: Mapping[str, Labels]) -> dict[str, AnyLabel | None]:
    """Return the label that more than half of the judges' verdicts share; None for a tie or without a verdict."""
    ids = next(iter(verdicts.values()), {})
    return {id: _most([labels[id] for labels in verdicts.values()]) for id in ids}


def _most(labels: list[AnyLabel | None]) -> AnyLabel | None:
    given = [label for label in labels if label is not None]
    return next((label for label in set(given) if 2 * given.count(label) > len(given)), None)


def _kappa(compared: Mapping[str, list[AnyLabel]]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    first, second = zip(*compared.values(), strict=True) if compared else ((), ())
    # With one label on both sides, chance alone agrees always.
    return float(cohen_kappa_score(first, second)) if len({*first, *second}) == 2 else None


def _alpha(verdicts: Mapping[str, Labels], compared: set[str]) -> float | None:
    from nltk.metrics.agreement import AnnotationTask

    triples = [
        (name, id, label)
        for name, labels in verdicts.items()
        for id, label in labels.items()
        if label is not None and id in compared
    ]
    return float(AnnotationTask(triples).alpha()) if len({label for _, _, label in triples}) == 2 else None
