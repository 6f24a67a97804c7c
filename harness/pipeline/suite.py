"""What the data of a suite of tasks hold, told without a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.data.duplicates import near_duplicate_groups
from harness.data.group import expand
from harness.data.sources import load_tasks
from harness.data.task import find_task
from harness.judges.language import why_not_english

# The spellings that most tokenizers take for a control token.
_CONTROL = re.compile(
    r"<[|\uff5c][^|\uff5c<>\n]{1,60}[|\uff5c]>|</?s>|\[/?INST\]|<</?SYS>>|</?think(?:ing)?>"
    r"|<(?:bos|eos|pad|start_of_turn|end_of_turn)>"
)


class TaskCheck(NamedTuple):
    """What one task's data hold; counts are of prompts.

    Attributes:
        task: its name.
        kind: harmful or benign.
        rows: how many the source has.
        prompts: how many of them the task keeps.
        expected: how many the public copy has, where the task's file says.
        categories: how many there are.
        repeats: those that are near another of the task, beyond the first of each group.
        shared: those that are near one of another task of the suite, as "task: prompts".
        control: those that spell a control token.
        other: those that are not English.
        columns: those of the source.
        source: where the rows came from.
        licence: of the data, with its terms.
    """

    task: str
    kind: str
    rows: int
    prompts: int
    expected: int | None
    categories: int
    repeats: int
    shared: str
    control: int
    other: int
    columns: str
    source: str
    licence: str


def check_suite(
    names: Sequence[str], include: Sequence[Path] = (), data_dirs: Sequence[Path] = ()
) -> list[TaskCheck]:
    """Read the data of tasks and say what they hold.

    Args:
        names: tasks and groups.
        include: folders with more YAML files.
        data_dirs: folders with copies of public sets.

    Raises:
        BadInputError: an unknown name, or data that cannot be had, of all tasks at once.
    """
    sets = load_tasks([find_task(name, include) for name in expand(names, include)], data_dirs)
    prompts = [prompt for each in sets for prompt in each.prompts]
    groups = near_duplicate_groups([prompt.text for prompt in prompts]).tolist()
    tasks_of: dict[int, Counter[str]] = {}
    for prompt, group in zip(prompts, groups, strict=True):
        tasks_of.setdefault(group, Counter())[prompt.task] += 1
    rows = []
    for each in sets:
        spec, own = each.spec, each.spec.name
        shared: Counter[str] = Counter()
        for tasks in tasks_of.values():
            shared.update({other: tasks[own] for other in tasks if other != own and tasks[own]})
        rows.append(
            TaskCheck(
                task=own,
                kind=spec.kind,
                rows=each.rows,
                prompts=len(each.prompts),
                expected=spec.size,
                categories=len({prompt.category for prompt in each.prompts} - {None}),
                repeats=sum(max(tasks[own] - 1, 0) for tasks in tasks_of.values()),
                shared=", ".join(f"{other}: {n}" for other, n in shared.most_common()),
                control=sum(_CONTROL.search(prompt.text) is not None for prompt in each.prompts),
                other=sum(why_not_english(prompt.text) is not None for prompt in each.prompts),
                columns=", ".join(each.columns),
                source=f"{each.resolved.kind}: {each.resolved.origin}",
                licence=f"{spec.licence} ({spec.terms})" if spec.terms else spec.licence,
            )
        )
    return rows
