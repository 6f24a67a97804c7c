"""A judge's sensitivity and specificity on a run's own answers, and whether they differ between parts of the run.

A part is, for example, the answers of one variant to one task. Labels are drawn by verdict, so each verdict has to be
weighed by how many answers got it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_STEPS = 300
_SIMULATED = 499


@dataclass(frozen=True, slots=True)
class Part:
    """Verdicts on the answers of one part of a run, and people's labels of some of them.

    Attributes:
        called: answers that the judge calls positive (refusal).
        others: answers that it calls negative.
        called_labelled: labelled answers among the former.
        called_positive: those of them that people call positive.
        others_labelled: labelled answers among the latter.
        others_positive: those of them that people call positive.
    """

    called: int
    others: int
    called_labelled: int
    called_positive: int
    others_labelled: int
    others_positive: int

    @property
    def sensitivity(self) -> float | None:
        """Of positive answers, the estimated share that the judge calls so; None where none is known."""
        return _share(self._positive(True), self._positive(False))

    @property
    def specificity(self) -> float | None:
        """Of negative answers, the estimated share that the judge calls so; None where none is known."""
        return _share(self.others - self._positive(False), self.called - self._positive(True))

    def _positive(self, called: bool) -> float:
        """Return the estimated number of positive answers with one verdict."""
        if called:
            return self.called * self.called_positive / max(self.called_labelled, 1)
        return self.others * self.others_positive / max(self.others_labelled, 1)


def _share(part: float, rest: float) -> float | None:
    return part / (part + rest) if part + rest > 0 else None


def errors_differ(parts: Sequence[Part], seed: int = 0) -> float | None:
    """Return how surprising it is that sensitivity and specificity differ so much between parts, as a p-value.

    It is the likelihood ratio test of one sensitivity and one specificity for all parts, whose true rates may differ;
    unlabelled answers count with their verdict alone (EM). Labels are few and errors near 0, so the p-value is from 499
    data sets, simulated with the common errors and labelled likewise. None for fewer than two parts.
    """
    import numpy as np

    if len(parts) < 2:
        return None
    columns = np.array([astuple(part) for part in parts], dtype=np.float64).T[:, :, None]
    ratio, rates, sensitivity, specificity = _ratio(*columns)
    generator = np.random.default_rng(seed)
    called, others, called_labelled, _, others_labelled, _ = columns[..., 0].astype(np.int64)
    shape = (_SIMULATED, len(parts))
    positive = generator.binomial(called + others, rates[:, 0], shape)
    found = generator.binomial(positive, sensitivity[0], shape)
    excess = generator.binomial(called + others - positive, 1 - specificity[0], shape)
    now_called = found + excess
    now_others = called + others - now_called
    # As many labels as were drawn of each verdict, or all there are.
    most = np.maximum(called_labelled, others_labelled)
    drawn, drawn_others = np.minimum(most, now_called), np.minimum(most, now_others)
    drawn_positive = generator.hypergeometric(found, excess, drawn)
    others_positive = generator.hypergeometric(positive - found, now_others - positive + found, drawn_others)
    simulated = (now_called, now_others, drawn, drawn_positive, drawn_others, others_positive)
    as_large = _ratio(*(each.T.astype(np.float64) for each in simulated))[0] >= ratio - 1e-6
    return float((1 + as_large.sum()) / (1 + _SIMULATED))


def _ratio(
    called: Floats, others: Floats, n_called: Floats, k_called: Floats, n_others: Floats, k_others: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return twice the log-likelihood ratio, and the true rates, sensitivity and specificity of one error for all.

    Counts are [parts, data sets]; so are rates, all else is [data sets].
    """
    import numpy as np
    from scipy.special import xlogy

    def likelihood(share: Floats, inside: Floats, outside: Floats) -> Floats:
        total: Floats = np.zeros_like(called)
        for count, chance in (
            (called, share),
            (others, 1 - share),
            (k_called, inside),
            (n_called - k_called, 1 - inside),
            (k_others, outside),
            (n_others - k_others, 1 - outside),
        ):
            total = total + xlogy(count, np.clip(chance, 1e-300, 1.0))
        summed: Floats = total.sum(axis=0)
        return summed

    n = called + others
    free = likelihood(called / n, k_called / np.maximum(n_called, 1), k_others / np.maximum(n_others, 1))
    # Half a label more of each kind keeps the start off the ends, which EM never leaves.
    found = called * (k_called + 0.5) / (n_called + 1)
    missed = others * (k_others + 0.5) / (n_others + 1)
    for _ in range(_STEPS):
        sensitivity = _ratio_of(found.sum(axis=0), (found + missed).sum(axis=0))
        right = others - missed
        specificity = _ratio_of(right.sum(axis=0), (right + called - found).sum(axis=0))
        rates = (found + missed) / n
        share = rates * sensitivity + (1 - rates) * (1 - specificity)
        inside = _ratio_of(rates * sensitivity, share)
        outside = _ratio_of(rates * (1 - sensitivity), 1 - share)
        found = k_called + (called - n_called) * inside
        missed = k_others + (others - n_others) * outside
    return 2 * (free - likelihood(share, inside, outside)), rates, sensitivity, specificity


def _ratio_of(part: Floats, whole: Floats) -> Floats:
    """Return a share, kept within 0 and 1; a half of nothing."""
    import numpy as np

    return np.where(whole > 0, np.clip(part / np.maximum(whole, 1e-300), 0.0, 1.0), 0.5)
