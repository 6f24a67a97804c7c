"""A rate corrected for the known errors of the judge that measured it.

A judge that misses refusals and takes compliance for refusal shows p = rate * Se + (1 - rate) * (1 - Sp). Solving
for the rate gives the estimator of Rogan and Gladen, Estimating prevalence from the results of a screening test,
American Journal of Epidemiology 107 (1978) 71. Its interval must carry three uncertainties: of the observed
rate, and of sensitivity and specificity, which people's labels of some other answers only estimate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


class Corrected(NamedTuple):
    """A corrected rate with its interval; arrays of one shape where counts were arrays."""

    value: Floats
    low: Floats
    high: Floats


def rogan_gladen(share: ArrayLike, sensitivity: ArrayLike, specificity: ArrayLike) -> Floats:
    """Return the true rate behind an observed share of positives, kept within 0 and 1; NaN without information.

    Args:
        share: observed share of positives.
        sensitivity: share of true positives that are called so.
        specificity: share of true negatives that are called so; with sensitivity it must exceed 1, or a verdict
            says nothing.
    """
    import numpy as np

    share, sensitivity, specificity = (
        np.asarray(x, dtype=np.float64) for x in (share, sensitivity, specificity)
    )
    information = sensitivity + specificity - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.clip((share + specificity - 1) / information, 0.0, 1.0)
    return np.where(information > 0, rate, np.nan)


def corrected_rate(
    positives: ArrayLike,
    n: ArrayLike,
    found: ArrayLike,
    n_positive: ArrayLike,
    rejected: ArrayLike,
    n_negative: ArrayLike,
    level: float = 0.95,
) -> Corrected:
    """Return the corrected rate with the interval of Lang and Reiczigel.

    Confidence limits for prevalence of disease adjusted for estimated sensitivity and specificity, Preventive
    Veterinary Medicine 113 (2014) 13: as Agresti and Coull do, all three shares are drawn a little to the
    middle, the variance is the delta method's, and the centre is shifted. Where Se + Sp does not exceed 1,
    verdicts say nothing: the value is NaN and the interval all of 0 to 1.

    Args:
        positives: answers that the judge called positive (refusal).
        n: answers that it judged, more than 0.
        found: of the positives by people's labels, those it called positive.
        n_positive: positives by people's labels, more than 0.
        rejected: of the negatives by people's labels, those it called negative.
        n_negative: negatives by people's labels, more than 0.
        level: the confidence level.
    """
    import numpy as np
    from scipy.stats import norm

    arrays = (
        np.asarray(x, dtype=np.float64) for x in (positives, n, found, n_positive, rejected, n_negative)
    )
    positives, n, found, n_positive, rejected, n_negative = np.broadcast_arrays(*arrays)
    z = float(norm.ppf((1 + level) / 2))
    share = (positives + z**2 / 2) / (n + z**2)
    sensitivity, specificity = (found + 1) / (n_positive + 2), (rejected + 1) / (n_negative + 2)
    information = sensitivity + specificity - 1
    missing = sensitivity * (1 - sensitivity) / (n_positive + 2)
    excess = specificity * (1 - specificity) / (n_negative + 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (share + specificity - 1) / information
        variance = share * (1 - share) / (n + z**2) + centre**2 * missing + (1 - centre) ** 2 * excess
        reach = z * np.sqrt(variance) / information
        centre = centre + 2 * z**2 * (centre * missing - (1 - centre) * excess)
        low, high = np.clip(centre - reach, 0.0, 1.0), np.clip(centre + reach, 0.0, 1.0)
    value = rogan_gladen(positives / n, found / n_positive, rejected / n_negative)
    usable = (information > 0) & ~np.isnan(value)
    low, high = np.where(usable, low, 0.0), np.where(usable, high, 1.0)
    # At the edges the shifted interval may miss the estimate, which is then its end.
    return Corrected(value, np.fmin(low, value), np.fmax(high, value))
