"""Which prompts say nearly the same, by the characters they share."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIMILARITY = 0.7
_ROWS = 512


def near_duplicates(texts: Sequence[str], threshold: float = SIMILARITY) -> NDArray[np.int64]:
    """Return pairs of texts whose TF-IDF vectors of character 3-to-5-grams within words are alike.

    Weights are taken over `texts`, so a pair's likeness depends a little on what else is in them.

    Args:
        texts: at least one text.
        threshold: the least cosine of a pair. At 0.7 AdvBench falls into groups of at most 15; at 0.5
            chains of pairs put 196 of its 520 prompts into one group.

    Returns:
        Indices [pairs, 2], first below second, in order. Texts that differ in case and spacing only are
        always among them.
    """
    import numpy as np

    vectors = _vectors(texts)
    transposed = vectors.T.tocsr()
    blocks = []
    # By blocks of rows: the whole product of 5,000 prompts would hold 25 million cosines at once.
    for start in range(0, len(texts), _ROWS):
        cosines = (vectors[start : start + _ROWS] @ transposed).tocoo()
        rows = cosines.row.astype(np.int64) + start
        # A cosine of equal texts may miss 1 by rounding, and so may a threshold of 1.
        alike = (cosines.data >= threshold - 1e-9) & (rows < cosines.col)
        blocks.append(np.stack([rows[alike], cosines.col[alike].astype(np.int64)], axis=1))
    pairs = np.concatenate(blocks)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def group_labels(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return a group number for each of `n` items, so that paired items are in one group."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels


def near_duplicate_groups(texts: Sequence[str]) -> NDArray[np.int32]:
    """Return a group number for each text, the same for near-duplicates and for what they chain together."""
    return group_labels(len(texts), near_duplicates(texts))


def nearest_cosine(texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
    """Return each text's highest cosine with any of the others, by the vectors of `near_duplicates`.

    Args:
        texts: at least one text.
        others: at least one text. Weights are taken over both.
    """
    import numpy as np

    vectors = _vectors([*texts, *others])
    transposed = vectors[len(texts) :].T.tocsr()
    blocks = [
        (vectors[start : min(start + _ROWS, len(texts))] @ transposed).max(axis=1).toarray().ravel()
        for start in range(0, len(texts), _ROWS)
    ]
    cosines: NDArray[np.float64] = np.concatenate(blocks)
    return cosines


def _vectors(texts: Sequence[str]) -> Any:
    """Return the TF-IDF vectors of texts, a sparse matrix of rows of unit length."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    plain = [" ".join(unicodedata.normalize("NFKC", text).lower().split()) for text in texts]
    return TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), lowercase=False).fit_transform(plain)
