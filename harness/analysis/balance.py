"""Load balance: how evenly a layer's routings are spread over its experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


class Balance(NamedTuple):
    """How even each layer's load is, [L] each.

    Attributes:
        entropy: of the experts' shares over its maximum log E: 1 is perfectly even, 0 a single expert.
        gini: the Gini coefficient of the shares: 0 is perfectly even, (E - 1) / E a single expert.
        max_share: the share of the busiest expert; 1 / E where all are alike.
    """

    entropy: npt.NDArray[np.float64]
    gini: npt.NDArray[np.float64]
    max_share: npt.NDArray[np.float64]


def load_balance(used: npt.NDArray[np.int64]) -> Balance:
    """Return the balance of each layer.

    Args:
        used: routings of each expert, [L, E]; a layer without any gives NaN.
    """
    total = used.sum(axis=1, keepdims=True)
    shares = np.divide(used, total, out=np.full(used.shape, np.nan), where=total > 0)
    n_experts = used.shape[1]
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    most = np.log(n_experts) if n_experts > 1 else 1.0
    # Gini by ranks: sum((2 i - E - 1) x_i) / (E sum x), x ascending and i from 1.
    ranks = 2 * np.arange(1, n_experts + 1) - n_experts - 1
    return Balance(
        entropy=-(shares * logs).sum(axis=1) / most,
        gini=(np.sort(shares, axis=1) * ranks).sum(axis=1) / n_experts,
        max_share=shares.max(axis=1),
    )
