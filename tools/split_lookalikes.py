"""Set the split of each prompt of the tasks `lookalikes` and `lookalikes_plain`.

    python tools/split_lookalikes.py

Run it from the root of the repository after a prompt was changed. It rewrites the column `split` of the two files in
tasks/data; the same prompts always get the same splits.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.base.files import read_jsonl, write_jsonl
from harness.data.duplicates import near_duplicate_groups
from harness.data.splits import FRACTIONS, pair_links
from harness.data.task import ROLES, Role

FOLDER = Path(__file__).resolve().parents[1] / "tasks" / "data"
FILES = ("lookalikes.jsonl", "lookalikes_plain.jsonl")
_SEED = 19


def splits_of(rows: Sequence[Mapping[str, str]]) -> list[Role]:
    """Return a split for each row.

    A group holds pairs and near-duplicates. Groups are shuffled within their category, and each in turn gets the
    role that is furthest below its share of the prompts so far. So the shares hold over all and, to a prompt or
    two, within each category.

    Args:
        rows: prompts with `prompt`, `category` and `pair`.
    """
    links = pair_links([row["pair"] for row in rows])
    labels = near_duplicate_groups([row["prompt"] for row in rows], links)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels.tolist()):
        members[label].append(index)
    by_category: defaultdict[str, list[list[int]]] = defaultdict(list)
    for group in members.values():
        by_category[rows[group[0]]["category"]].append(group)

    generator = random.Random(_SEED)
    given: Counter[Role] = Counter()
    splits: dict[int, Role] = {}
    for groups in by_category.values():
        generator.shuffle(groups)
        for group in groups:
            total = given.total() + len(group)
            role = max(ROLES, key=lambda role: FRACTIONS[role] * total - given[role])
            given[role] += len(group)
            splits.update(dict.fromkeys(group, role))
    return [splits[index] for index in range(len(rows))]


def main() -> None:
    """Rewrite the two files."""
    tables = [read_jsonl(FOLDER / name) for name in FILES]
    splits = iter(splits_of([row for rows in tables for row in rows]))
    for name, rows in zip(FILES, tables, strict=True):
        write_jsonl(FOLDER / name, [{**row, "split": next(splits)} for row in rows])


if __name__ == "__main__":
    main()
