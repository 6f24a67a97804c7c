"""Which labelled answers are to one prompt: on a judge's card they are no independent evidence."""

from __future__ import annotations

from collections.abc import Sequence

from harness.data.duplicates import group_labels, near_duplicate_groups
from harness.judges.labels import Labelled


def prompts_of(rows: Sequence[Labelled]) -> list[int]:
    """Return a number of each answer's prompt: the same for one id, for one text and for near-duplicates.

    An id joins answers of several models, and those under an attack whose prompts no longer look alike. Files that
    number different prompts alike lose nothing but a few degrees of freedom, since larger groups are valid too.

    Args:
        rows: at least one.
    """
    import numpy as np

    texts = list(dict.fromkeys(row.prompt for row in rows if row.prompt))
    alike = dict(zip(texts, near_duplicate_groups(texts).tolist(), strict=True)) if texts else {}
    first: dict[str | int, int] = {}
    links = []
    for place, row in enumerate(rows):
        links.append((first.setdefault(row.id, place), place))
        if row.prompt:
            links.append((first.setdefault(alike[row.prompt], place), place))
    return [int(group) for group in group_labels(len(rows), np.array(links, dtype=np.int64))]
