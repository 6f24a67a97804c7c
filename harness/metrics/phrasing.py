"""Whether refusals only repeat the words of training.

A keyword judge that recognises a variant's refusals may be recognising the sentences it was trained on. So the
refusals are compared with the training phrasings, and with phrasings of the same kind that were held out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from harness.metrics.clustered import mean_and_error
from harness.metrics.interval import Interval
from harness.metrics.rates import Rate, rate

if TYPE_CHECKING:
    import numpy as np

_TOPIC = re.compile(r"\\\{topic\\\}", re.IGNORECASE)


def phrasing_rates(
    refusals: Sequence[str],
    trained: Sequence[str],
    held_out: Sequence[str],
    prompts: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
) -> dict[str, Rate]:
    """Compare refusals with phrasings.

    Args:
        refusals: answers that a judge called refusals.
        trained: phrasings of the training set, `{topic}` standing for any few words.
        held_out: phrasings that training never saw.
        prompts: the prompt of each refusal, where a prompt has several answers: intervals are over prompts then.
        groups: of near-duplicate prompts, that of each refusal where there are any: intervals are over groups then.

    Returns:
        `refusal_verbatim_trained`: share of refusals that hold a training phrasing word for word (Wilson
        interval); `refusal_similarity_trained` and `refusal_similarity_held_out`: mean similarity to the
        nearest phrasing of each kind, the cosine of character 3-to-5-gram counts of the answer's opening
        (normal interval).
    """
    n = len(refusals)
    if not n:
        nothing = Rate(None, 0, 0, 0)
        names = ("refusal_verbatim_trained", "refusal_similarity_trained", "refusal_similarity_held_out")
        return dict.fromkeys(names, nothing)
    patterns = [
        re.compile(_TOPIC.sub(r".{1,60}?", re.escape(phrasing)), re.IGNORECASE) for phrasing in trained
    ]
    copies = {
        str(i): any(pattern.search(refusal) for pattern in patterns) for i, refusal in enumerate(refusals)
    }
    of_prompts = None if prompts is None else {str(i): prompt for i, prompt in enumerate(prompts)}
    of_groups = None if groups is None else {str(i): group for i, group in enumerate(groups)}
    clusters = prompts if groups is None else groups
    nearest_trained, nearest_held_out = _nearest(refusals, trained), _nearest(refusals, held_out)
    return {
        "refusal_verbatim_trained": rate(copies, of_groups, of_prompts),
        "refusal_similarity_trained": _mean(nearest_trained, clusters),
        "refusal_similarity_held_out": _mean(nearest_held_out, clusters),
    }


def _nearest(refusals: Sequence[str], phrasings: Sequence[str]) -> np.ndarray:
    """Return each refusal's highest cosine similarity to a phrasing, [N]."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    plain = [re.sub(r"\{topic\}", "that", phrasing, flags=re.IGNORECASE) for phrasing in phrasings]
    longest = max(map(len, plain))
    counter = CountVectorizer(analyzer="char_wb", ngram_range=(3, 5), binary=True)
    known = normalize(counter.fit_transform(plain))
    openings = [refusal[:longest] for refusal in refusals]
    # Refusals repeat each other.
    row_of = {opening: row for row, opening in enumerate(dict.fromkeys(openings))}
    asked = normalize(counter.transform(row_of))
    similarity: np.ndarray = (asked @ known.T).max(axis=1).toarray().ravel()
    return similarity[[row_of[opening] for opening in openings]]


def _mean(values: np.ndarray, clusters: Sequence[Hashable] | None) -> Rate:
    n = len(values)
    mean = float(values.mean())
    if clusters is None:
        reach = 1.96 * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    else:
        reach = 1.96 * mean_and_error(values.tolist(), clusters)[1] if len(set(clusters)) > 1 else 0.0
    return Rate(Interval(value=mean, low=max(mean - reach, 0.0), high=min(mean + reach, 1.0)), n, n, 0)
