"""Control prompts: benign prompts on the harmful prompts' own topics, matched one to one where the tasks say so.

The difference between harmful prompts and ordinary benign ones mixes harm with topic and wording. Against prompts on
the same topics, the topic's part cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.base.errors import BadInputError
from harness.data.duplicates import group_labels
from harness.experts.views import Usage

if TYPE_CHECKING:
    import numpy.typing as npt


class Pairs(NamedTuple):
    """Matched prompts: `keys` of the pairs, and each prompt's pair among them (-1: none) on either side."""

    keys: tuple[str, ...]
    harmful: npt.NDArray[np.int64]
    control: npt.NDArray[np.int64]


def match(harmful: Sequence[str | None], control: Sequence[str | None]) -> Pairs:
    """Match prompts by their pair keys; keys on one side only make no pair.

    Args:
        harmful: the key of each harmful prompt, or None.
        control: the key of each control prompt, or None.
    """
    keys = tuple(
        sorted({key for key in harmful if key is not None} & {key for key in control if key is not None})
    )
    place = {key: i for i, key in enumerate(keys)}

    def places(of: Sequence[str | None]) -> npt.NDArray[np.int64]:
        return np.array([place.get(key, -1) if key is not None else -1 for key in of], dtype=np.int64)

    return Pairs(keys, places(harmful), places(control))


def pair_groups(
    pairs: Pairs, harmful: npt.NDArray[np.integer], control: npt.NDArray[np.integer]
) -> npt.NDArray[np.int32]:
    """Return a group number for each pair: pairs are one group where a prompt of one repeats a prompt of the other.

    Args:
        pairs: from `match`.
        harmful: the group of near-duplicates of each harmful prompt.
        control: that of each control prompt.
    """
    links = []
    for pair, groups in ((pairs.harmful, harmful), (pairs.control, control)):
        first: dict[int, int] = {}
        for place, group in zip(pair[pair >= 0].tolist(), groups[pair >= 0].tolist(), strict=True):
            links.append((first.setdefault(group, place), place))
    return group_labels(len(pairs.keys), np.array(links, dtype=np.int64).reshape(-1, 2))


class PairDifferences(NamedTuple):
    """Differences of pairs, harmful less control, and which of all pairs they are of.

    Attributes:
        differences: [kept, L, E].
        kept: [pairs], bool.
    """

    differences: npt.NDArray[np.float64]
    kept: npt.NDArray[np.bool_]


def pair_differences(harmful: Usage, control: Usage, pairs: Pairs) -> PairDifferences:
    """Return each pair's difference in the prompts' own rates, harmful less control.

    Several prompts on one side of a pair are averaged. A pair one of whose sides has no token in the phase is left out.

    Raises:
        BadInputError: no pair is left.
    """
    sides = [
        _mean_by_pair(view, of, len(pairs.keys))
        for view, of in ((harmful, pairs.harmful), (control, pairs.control))
    ]
    differences = sides[0] - sides[1]
    whole: npt.NDArray[np.bool_] = np.asarray(np.isfinite(differences).all(axis=(1, 2)))
    if not whole.any():
        raise BadInputError("no matched pair has routed tokens on both sides: nothing to adjust for topic by")
    return PairDifferences(differences[whole], whole)


def _mean_by_pair(view: Usage, pair: npt.NDArray[np.int64], n_pairs: int) -> npt.NDArray[np.float64]:
    rows = (pair >= 0) & (view.weight > 0)
    sums = np.zeros((n_pairs, *view.used.shape[1:]))
    np.add.at(sums, pair[rows], view.rates()[rows])
    members = np.bincount(pair[rows], minlength=n_pairs).astype(np.float64)
    with np.errstate(invalid="ignore"):
        means: npt.NDArray[np.float64] = sums / members[:, None, None]
    return means
