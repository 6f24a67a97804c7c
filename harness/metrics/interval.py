"""A figure with its 95 % interval: one type for every metric, file and report; and the interval of a share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


class Interval(BaseModel):
    """A figure with its 95 % interval."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    value: float
    """The estimate."""
    low: float
    """The lower end."""
    high: float
    """The upper end."""


NORMAL = 1.959963984540054
"""The quantile of the normal distribution for 95 %."""


def wilson_ends(share: npt.ArrayLike, n: npt.ArrayLike, quantile: float = NORMAL) -> tuple[Floats, Floats]:
    """Return the ends of Wilson's score interval (1927) of shares, which hold the shares themselves.

    Args:
        share: the shares.
        n: how many independent samples each is of, above 0.
        quantile: of the normal distribution, or of t where the number of independent samples is an estimate.
    """
    import numpy as np

    share, n = np.asarray(share, dtype=np.float64), np.asarray(n, dtype=np.float64)
    square = quantile**2
    scale = 1 + square / n
    centre = (share + square / (2 * n)) / scale
    reach = quantile * np.sqrt(share * (1 - share) / n + square / (4 * n**2)) / scale
    # At 0 and 1 the ends miss the share by rounding (1e-17).
    return np.clip(centre - reach, 0.0, share), np.clip(centre + reach, share, 1.0)
