"""Co-activation: which experts serve the same tokens, more or less often than their own frequencies predict.

Pairs are counted within a layer (both experts among the token's k) and between neighbouring MoE layers (the token
went from the one to the other). Counting is a product of one-hot matrices, token by expert, one layer at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.base.errors import BadInputError
from harness.routing.counts import DECISION_WINDOW, Phase

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from harness.routing.tokens import RoutedTokens


class PairCounts(NamedTuple):
    """How often a group's tokens went to pairs of experts.

    Attributes:
        used: tokens that went to the expert, int64 [L, E].
        within: tokens that went to both experts of a layer, int64 [L, E, E]; the diagonal is `used`.
        between: tokens that went to the first in one layer and to the second in the next, int64 [L - 1, E, E].
        tokens: how many tokens there were.
    """

    used: npt.NDArray[np.int64]
    within: npt.NDArray[np.int64]
    between: npt.NDArray[np.int64]
    tokens: int


def in_phase(tokens: RoutedTokens, phase: Phase) -> npt.NDArray[np.bool_]:
    """Return which tokens belong to a phase, [T]."""
    places, from_answer = tokens.places, tokens.answer_places
    inside: dict[Phase, npt.NDArray[np.bool_]] = {
        "prompt": places < 0,
        "generation": places >= 0,
        "all": np.ones(len(places), dtype=np.bool_),
        "decision": (from_answer >= -DECISION_WINDOW) & (from_answer < DECISION_WINDOW),
        "reasoning": (places >= 0) & (from_answer < 0),
        "answer": from_answer >= 0,
    }
    return inside[phase]


def count_pairs(experts: npt.NDArray[np.unsignedinteger[Any]], n_experts: int) -> PairCounts:
    """Count the pairs of some tokens.

    Args:
        experts: the experts of each token, [T, L, k].
        n_experts: E.
    """
    n_tokens, n_layers, _ = experts.shape
    within, between, earlier = [], [], None
    for layer in range(n_layers):
        chosen = _one_hot(experts[:, layer], n_experts)
        within.append((chosen.T @ chosen).toarray())
        if earlier is not None:
            between.append((earlier.T @ chosen).toarray())
        earlier = chosen
    pairs = np.stack(within)
    return PairCounts(
        used=np.diagonal(pairs, axis1=1, axis2=2).copy(),
        within=pairs,
        between=np.stack(between) if between else np.zeros((0, n_experts, n_experts), dtype=np.int64),
        tokens=n_tokens,
    )


def _one_hot(experts: npt.NDArray[np.unsignedinteger[Any]], n_experts: int) -> Any:
    """Return the sparse matrix [T, E] with a 1 for each expert of a token."""
    from scipy.sparse import csr_array

    n_tokens, k = experts.shape
    ones = np.ones(n_tokens * k, dtype=np.int64)
    ends = np.arange(0, n_tokens * k + 1, k)
    return csr_array((ones, experts.astype(np.int32).ravel(), ends), shape=(n_tokens, n_experts))


def add_pairs(parts: Iterable[PairCounts]) -> PairCounts:
    """Put the counts of several tasks together."""
    used, within, between, tokens = zip(*parts, strict=True)
    return PairCounts(np.sum(used, axis=0), np.sum(within, axis=0), np.sum(between, axis=0), sum(tokens))


def pair_table(layers: Sequence[int], harmful: PairCounts, benign: PairCounts) -> pd.DataFrame:
    """Compare how often pairs of experts work together in two groups.

    Args:
        layers: true indices of the MoE layers.
        harmful: counts of the harmful prompts' tokens.
        benign: counts of the benign ones'.

    Returns:
        One row for each pair that at least one token of either group went to, the largest difference first:

        - layer, expert, other_layer, other_expert: the pair; other_layer is layer for a pair within it.
        - observed_harmful: share of the group's tokens that went to both.
        - expected_harmful: the product of both experts' own shares, which independence within the group predicts.
        - excess_harmful: observed less expected.
        - observed_benign, expected_benign, excess_benign: the same.
        - difference: excess_harmful less excess_benign.

        Within a layer a token has k experts, no two the same, so choosing one leaves less room for another: there an
        excess is below zero on average. That is so in both groups, and the difference shows it less.

    Raises:
        BadInputError: a group has no token.
    """
    import pandas as pd

    for name, group in (("harmful", harmful), ("benign", benign)):
        if not group.tokens:
            raise BadInputError(f"the {name} prompts have no routed token in this phase: no pairs to count")
    n_experts = harmful.used.shape[1]
    first, second = np.triu_indices(n_experts, k=1)
    every, other = (grid.ravel() for grid in np.indices((n_experts, n_experts)))
    true = np.asarray(layers)
    parts = []
    for place in range(len(true)):
        parts.append(_rows(true, (place, place), (first, second), harmful, benign))
        if place + 1 < len(true):
            parts.append(_rows(true, (place, place + 1), (every, other), harmful, benign))
    table = pd.concat(parts, ignore_index=True)
    size = -table["difference"].abs()
    key = ["size", "layer", "other_layer", "expert", "other_expert"]
    return table.assign(size=size).sort_values(key).drop(columns="size").reset_index(drop=True)


def _rows(
    layers: npt.NDArray[np.int64],
    places: tuple[int, int],
    experts: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    harmful: PairCounts,
    benign: PairCounts,
) -> pd.DataFrame:
    """Return the rows of the pairs of two places among the MoE layers, or of one place twice."""
    import pandas as pd

    (here, there), (first, second) = places, experts
    columns: dict[str, Any] = {
        "layer": layers[here],
        "expert": first,
        "other_layer": layers[there],
        "other_expert": second,
    }
    seen = np.zeros(len(first), dtype=np.int64)
    for name, group in (("harmful", harmful), ("benign", benign)):
        pairs = group.within[here] if here == there else group.between[here]
        together = pairs[first, second]
        own = group.used / group.tokens
        columns[f"observed_{name}"] = together / group.tokens
        columns[f"expected_{name}"] = own[here, first] * own[there, second]
        columns[f"excess_{name}"] = columns[f"observed_{name}"] - columns[f"expected_{name}"]
        seen += together
    columns["difference"] = columns["excess_harmful"] - columns["excess_benign"]
    return pd.DataFrame(columns)[seen > 0]


def strongest(table: pd.DataFrame, n: int, *, within: bool) -> pd.DataFrame:
    """Return the n pairs with the largest difference, within layers or between neighbouring ones."""
    inside = table["layer"] == table["other_layer"]
    return table[inside if within else ~inside].head(n)
