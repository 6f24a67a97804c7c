"""Which prompts say nearly the same, by the characters they share.

Two texts are near-duplicates where the cosine of their TF-IDF vectors of character 3-to-5-grams within words is at
least `SIMILARITY`. Not every pair is looked at, yet none is missed. A pair within one group needs no look. And a text's
vector is split into a heavy part, its most common grams, and the rest: what the heavy part can add to a cosine is at
most its length, so the product with the rest rules most pairs out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIMILARITY = 0.7
# A cosine of equal texts may miss 1 by rounding, and so may a threshold of 1.
_ROUNDING = 1e-9
_MOST_ROWS, _MOST_PRODUCTS = 1024, 8_000_000
_CHUNK = 50_000
# The length of a row's heavy part, as a share of the threshold.
_HEAVY = 0.7


def group_labels(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return a group number for each of `n` items, so that paired items are in one group."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels


def near_duplicate_groups(
    texts: Sequence[str], links: NDArray[np.int64] | None = None, threshold: float = SIMILARITY
) -> NDArray[np.int32]:
    """Return a group number for each text, the same for near-duplicates and for what they chain together.

    Args:
        texts: at least one text.
        links: indices [links, 2] of texts that are in one group whatever they say.
        threshold: the least cosine of near-duplicates.
    """
    return Likeness(texts, threshold).groups(links=links)


def groups_where_repeated(texts: Mapping[str, str]) -> dict[str, int] | None:
    """Return the group number of each text by its id; None where no text nearly repeats another."""
    if len(texts) < 2:
        return None
    groups = near_duplicate_groups([*texts.values()]).tolist()
    return dict(zip(texts, groups, strict=True)) if len(set(groups)) < len(texts) else None


def near_duplicates_of(
    texts: Sequence[str], others: Sequence[str], threshold: float = SIMILARITY
) -> NDArray[np.bool_]:
    """Return which texts are a near-duplicate of any of the others; weights are taken over both."""
    import numpy as np

    is_text = np.arange(len(texts) + len(others)) < len(texts)
    return Likeness([*texts, *others], threshold).beside(is_text, ~is_text)[: len(texts)]


class Likeness:
    """Which of some texts are near-duplicates.

    Weights are taken over all the texts, so a pair's likeness depends a little on what else is among them.

    Args:
        texts: at least one text.
        threshold: the least cosine of near-duplicates. At 0.7 AdvBench falls into groups of at most 15; at 0.5 chains
            of pairs put 196 of its 520 prompts into one group.
    """

    def __init__(self, texts: Sequence[str], threshold: float = SIMILARITY) -> None:
        import numpy as np
        from scipy.sparse import csr_matrix

        self._least = threshold - _ROUNDING
        self._vectors = vectors = _vectors(texts)
        uses = np.bincount(vectors.indices, minlength=vectors.shape[1])
        # From the most common gram on, each row's squared length; what stays below the bound is its heavy part.
        row = np.repeat(np.arange(len(texts)), np.diff(vectors.indptr))
        order = np.lexsort((-uses[vectors.indices], row))
        length = np.cumsum(vectors.data[order] ** 2)
        before = np.concatenate([[0.0], length])[vectors.indptr[:-1]]
        is_heavy = np.zeros(vectors.nnz, dtype=bool)
        is_heavy[order] = length - before[row] <= (_HEAVY * threshold) ** 2
        light = vectors.data * ~is_heavy
        self._light = csr_matrix((light, vectors.indices, vectors.indptr), shape=vectors.shape, copy=True)
        self._light.eliminate_zeros()
        self._heavy_length = np.sqrt(np.bincount(row, vectors.data**2 * is_heavy, minlength=len(texts)))
        # How many products a row takes at most.
        self._products = np.bincount(row, uses[vectors.indices] * ~is_heavy, minlength=len(texts))

    def groups(
        self, among: NDArray[np.bool_] | None = None, links: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32]:
        """Return a group number for each text, in the order of their first members.

        Args:
            among: which texts may be grouped as near-duplicates [texts]; all by default.
            links: indices [links, 2] of texts that are in one group whatever they say.
        """
        import numpy as np

        n = self._vectors.shape[0]
        labels = np.arange(n, dtype=np.int32) if links is None else group_labels(n, links)
        # In no order that the texts may have: the first few rows then join most of each large group.
        left = np.random.default_rng(0).permutation(n if among is None else np.flatnonzero(among))
        size = 16

        def apart(pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
            different: NDArray[np.bool_] = labels[pairs[:, 0]] != labels[pairs[:, 1]]
            return different

        while len(left):
            rows = self._next(left, labels, size)
            size = min(2 * size, _MOST_ROWS)
            others = left if len(set(labels[rows])) > 1 else left[labels[left] != labels[rows[0]]]
            for pairs in self._alike(rows, others, apart):
                labels[:] = group_labels(int(labels.max()) + 1, labels[pairs].astype(np.int64))[labels]
            left = left[~np.isin(left, rows)]
        return group_labels(n, _chained(labels))

    def beside(self, rows: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which texts among `rows` are a near-duplicate of one among `others`, all of them masks [texts]."""
        import numpy as np

        found = np.zeros(len(rows), dtype=bool)
        left, targets = np.flatnonzero(rows), np.flatnonzero(others)
        while len(left) and len(targets):
            part = left[: self._fitting(left, _MOST_ROWS)]
            for pairs in self._alike(
                part, targets, lambda pairs: ~found[pairs[:, 0]] & (pairs[:, 0] != pairs[:, 1])
            ):
                found[pairs[:, 0]] = True
            left = left[len(part) :]
        return found

    def _next(self, left: NDArray[np.int64], labels: NDArray[np.int32], size: int) -> NDArray[np.int64]:
        """Return the rows to look at next: those of one large group, which need no look at one another."""
        import numpy as np

        sizes = np.bincount(labels[left])
        largest = int(sizes.argmax())
        rows = left[labels[left] == largest] if sizes[largest] > size else left
        return rows[: self._fitting(rows, size)]

    def _fitting(self, rows: NDArray[np.int64], size: int) -> int:
        """Return how many of some rows, at least one, are looked at together."""
        import numpy as np

        products = np.cumsum(self._products[rows[:size]])
        return max(1, int(np.searchsorted(products, _MOST_PRODUCTS, side="right")))

    def _alike(
        self,
        rows: NDArray[np.int64],
        others: NDArray[np.int64],
        wanted: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
    ) -> Iterator[NDArray[np.int64]]:
        """Give the near-duplicates [pairs, 2] of `rows` among `others`, of those pairs that are still wanted."""
        import numpy as np

        products = (self._light[rows] @ self._vectors[others].T).tocoo()
        # What the heavy part can add is its length at most, since the other row's is 1.
        possible = products.data >= self._least - _ROUNDING - self._heavy_length[rows][products.row]
        candidates = np.stack([rows[products.row[possible]], others[products.col[possible]]], axis=1)
        del products, possible
        candidates = candidates[wanted(candidates)]
        if len(candidates) > _CHUNK and 4 * len(candidates) > len(rows) * len(others):
            for pairs in self._alike_by_product(rows, others):
                yield pairs[wanted(pairs)]
            return
        for start in range(0, len(candidates), _CHUNK):
            chunk = candidates[start : start + _CHUNK]
            chunk = chunk[wanted(chunk)]
            one, other = (self._vectors[chunk[:, side]] for side in (0, 1))
            cosines = np.asarray(one.multiply(other).sum(axis=1)).ravel()
            yield chunk[cosines >= self._least]

    def _alike_by_product(
        self, rows: NDArray[np.int64], others: NDArray[np.int64]
    ) -> Iterator[NDArray[np.int64]]:
        import numpy as np

        size = max(1, _MOST_PRODUCTS // len(others))
        transposed = self._vectors[others].T
        for start in range(0, len(rows), size):
            cosines = (self._vectors[rows[start : start + size]] @ transposed).tocoo()
            alike = cosines.data >= self._least
            yield np.stack([rows[start + cosines.row[alike]], others[cosines.col[alike]]], axis=1)


def _chained(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return indices [links, 2] that chain the members of each group."""
    import numpy as np

    order = np.argsort(labels, kind="stable")
    same = labels[order[1:]] == labels[order[:-1]]
    return np.stack([order[:-1][same], order[1:][same]], axis=1).astype(np.int64)


def _vectors(texts: Sequence[str]) -> Any:
    """Return the TF-IDF vectors of texts, a sparse matrix of rows of unit length.

    Grams that occur in the same texts equally often, such as those of a word that all of a template's prompts have, are
    one column, as long as all of them together: no cosine changes.
    """
    import numpy as np
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    plain = [unicodedata.normalize("NFKC", text).lower() for text in texts]
    # A text's grams are those of its words, and most words come often.
    words = CountVectorizer(analyzer=str.split)
    by_text = words.fit_transform(plain)
    grams = CountVectorizer(analyzer="char_wb", ngram_range=(3, 5), lowercase=False)
    counts = csr_matrix(by_text @ grams.fit_transform(words.get_feature_names_out()))
    vectors = TfidfTransformer().fit_transform(counts)

    columns = counts.T.tocsr()
    draw = np.random.default_rng(0)
    marks = [columns @ draw.integers(1, 2**62, len(texts), dtype=np.int64) for _ in range(2)]
    _, first, same, sizes = np.unique(
        np.stack(marks, axis=1), axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    if (columns - columns[first[same.ravel()]]).nnz:
        raise AssertionError("two columns that differ have the same marks")
    merged = vectors[:, first]
    return csr_matrix(merged.multiply(np.sqrt(sizes)[None, :]))
