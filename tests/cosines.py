"""Near-duplicates by the definition: every cosine at once, for as many texts as that allows."""

from __future__ import annotations

import unicodedata

import numpy as np


def cosines(texts):
    """Return the cosines [texts, texts] of the TF-IDF vectors of character 3-to-5-grams within words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    plain = [" ".join(unicodedata.normalize("NFKC", text).lower().split()) for text in texts]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), lowercase=False).fit_transform(plain)
    return (vectors @ vectors.T).toarray()


def near_duplicates(texts, threshold=0.7):
    """Return the pairs of near-duplicates, first below second."""
    return np.argwhere(np.triu(cosines(texts) >= threshold - 1e-9, k=1))
