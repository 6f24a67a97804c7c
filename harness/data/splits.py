"""Which prompts find the experts, which train them and which test the result.

Splits are made once over all tasks of a run together, since tasks share prompts (18 of JailbreakBench come
from AdvBench). Near-duplicates and matched pairs form groups, and a group serves one role.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.data.duplicates import SIMILARITY, Likeness, near_duplicate_groups
from harness.data.prompts import Prompt, PromptSet
from harness.data.task import ROLES, Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Limit = int | Mapping[Role, int] | None

_POOL = 20_000
"""With a limit, a larger task is cut to so many prompts before groups are formed, or to 20 times the limit."""

FRACTIONS: Mapping[Role, float] = {"identify": 0.2, "train": 0.4, "test": 0.4}


@dataclass(frozen=True, slots=True)
class Splits:
    """Prompts by task and role, each prompt at most once.

    Attributes:
        prompts: by task and role, in a seeded order; a lower limit keeps a beginning of it.
        seed: what decided.
        fractions: the share of each role where a task declares no splits.
        limit: the most prompts of a task and role, for all roles or by role; None for all prompts.
        groups: how many groups the prompts in use fell into.
        dropped: by task, the prompts left out: they nearly repeat, or are paired with, a prompt whose role
            they may not serve, or may serve none.
        fingerprints: of the prompt sets split.
        pairs: by task, the key of each test prompt in a matched pair, equal for matched prompts of linked tasks.
    """

    prompts: Mapping[str, Mapping[Role, list[Prompt]]]
    seed: int
    fractions: Mapping[Role, float]
    limit: Limit
    groups: int
    dropped: Mapping[str, int]
    fingerprints: Mapping[str, str]
    pairs: Mapping[str, Mapping[str, str]]

    def require(self, task: str, role: Role, at_least: int) -> list[Prompt]:
        """Return the prompts of a task and role.

        Raises:
            BadInputError: there are fewer than `at_least`.
        """
        prompts = self.prompts[task][role]
        if len(prompts) < at_least:
            raise BadInputError(
                f"task {task}: split {role}: {len(prompts)} prompts, at least {at_least} needed{self.why_few([task])}"
            )
        return prompts

    def why_few(self, tasks: Iterable[str]) -> str:
        """Return a clause that names the tasks whose prompts are all near-duplicates of one another; "" for none."""
        reasons = []
        for task in tasks:
            texts = [prompt.text for prompts in self.prompts[task].values() for prompt in prompts]
            if len(texts) > 1 and near_duplicate_groups(texts).max() == 0:
                alike = f"all {len(texts)} prompts of '{task}' are near-duplicates of one another"
                reasons.append(f"; {alike}, which stay in one split")
        return "".join(reasons)

    def record(self) -> dict[str, Any]:
        """Return the splits as JSON."""
        return {
            "seed": self.seed,
            "fractions": dict(self.fractions),
            "limit": self.limit,
            "similarity": SIMILARITY,
            "groups": self.groups,
            "tasks": {
                task: {
                    "fingerprint": self.fingerprints[task],
                    "dropped_near_duplicates": self.dropped[task],
                    "ids": {role: [prompt.id for prompt in prompts] for role, prompts in roles.items()},
                    "categories": {
                        prompt.id: prompt.category for prompt in roles["test"] if prompt.category is not None
                    },
                    "pairs": dict(self.pairs[task]),
                    **_tags(roles["test"]),
                }
                for task, roles in self.prompts.items()
            },
        }


def make_splits(
    prompt_sets: Sequence[PromptSet],
    seed: int,
    fractions: Mapping[Role, float] = FRACTIONS,
    limit: Limit = None,
) -> Splits:
    """Split the prompts of all tasks of a run.

    Near-duplicates and matched pairs are kept in one role, as docs/tasks.md describes. The result depends on
    the prompts, the seed and the fractions, not on the order of the tasks.

    Args:
        prompt_sets: the run's tasks.
        seed: decides which groups serve which role, and the order within a role.
        fractions: the shares of the roles; those that a task does not serve are left out of its shares.
        limit: keep at most so many prompts for each task and role; by role where it is a mapping.

    Raises:
        BadInputError: fractions that are negative or no share at all, a limit below 1, or two tasks with one
            name.
    """
    caps = limit if isinstance(limit, Mapping) else dict.fromkeys(ROLES, limit)
    for cap in caps.values():
        if cap is not None and cap < 1:
            raise BadInputError(f"limit: expected at least 1, found {cap}")
    names = [prompt_set.spec.name for prompt_set in prompt_sets]
    if len(set(names)) < len(names):
        raise BadInputError(f"tasks: '{max(names, key=names.count)}' is given twice")
    if min(fractions.values()) < 0 or not any(fractions.values()):
        raise BadInputError(f"splits: fractions: expected shares of at least 0, found {dict(fractions)}")
    pools = {prompt_set.spec.name: _pool(prompt_set, caps, seed) for prompt_set in prompt_sets}
    ordered = sorted(
        (prompt for pool in pools.values() for prompt in pool), key=lambda prompt: (prompt.task, prompt.id)
    )
    roles_of = {prompt_set.spec.name: prompt_set.spec.roles for prompt_set in prompt_sets}
    declaring = {prompt.task for prompt in ordered if prompt.split == "identify"}
    possible = [
        _possible_roles(prompt, roles_of[prompt.task], is_pool=prompt.task not in declaring)
        for prompt in ordered
    ]
    pair_keys = pair_keys_of(ordered, prompt_sets)
    groups = _groups(ordered, possible, pair_keys)
    assigned = _assign(groups, ordered, possible, fractions, seed)

    prompts: dict[str, dict[Role, list[Prompt]]] = {name: {role: [] for role in ROLES} for name in names}
    # Pairs share a key, so that the limit keeps the same pairs in both tasks.
    in_order = sorted(assigned, key=lambda index: _draw(seed, pair_keys[index] or _key(ordered[index])))
    for index in in_order:
        prompts[ordered[index].task][assigned[index]].append(ordered[index])
    used = Counter(ordered[index].task for index in assigned)
    kept: dict[str, Mapping[Role, list[Prompt]]] = {
        name: {role: chosen[: caps.get(role)] for role, chosen in roles.items()}
        for name, roles in prompts.items()
    }
    return Splits(
        prompts=kept,
        seed=seed,
        fractions=dict(fractions),
        limit=dict(limit) if isinstance(limit, Mapping) else limit,
        groups=len(groups),
        dropped={name: len(pool) - used[name] for name, pool in pools.items()},
        fingerprints={prompt_set.spec.name: prompt_set.fingerprint for prompt_set in prompt_sets},
        pairs={name: _pairs(roles["test"], prompt_sets) for name, roles in kept.items()},
    )


def _pool(prompt_set: PromptSet, caps: Mapping[Role, int | None], seed: int) -> Sequence[Prompt]:
    """Return the prompts that are shared out: of a large task under a limit a seeded sample, pairs together.

    Near-duplicates of a million prompts take long, to keep a hundred of them. Each declared split has its own sample.
    """
    limits = [caps.get(role) for role in prompt_set.spec.roles]
    if None in limits:
        return prompt_set.prompts
    most = max(_POOL, 20 * max(cap for cap in limits if cap is not None))
    if len(prompt_set.prompts) <= most:
        return prompt_set.prompts
    keys = pair_keys_of(prompt_set.prompts, [prompt_set])
    drawn = sorted(
        (_draw(seed, key or _key(prompt)), place)
        for place, (prompt, key) in enumerate(zip(prompt_set.prompts, keys, strict=True))
    )
    left = dict.fromkeys((None, *ROLES), most)
    pool = []
    for _, place in drawn:
        prompt = prompt_set.prompts[place]
        if left[prompt.split]:
            left[prompt.split] -= 1
            pool.append(prompt)
    return pool


def _tags(prompts: Sequence[Prompt]) -> dict[str, Any]:
    tags = {prompt.id: list(prompt.tags) for prompt in prompts if prompt.tags}
    return {"tags": tags} if tags else {}


def _pairs(prompts: Sequence[Prompt], prompt_sets: Sequence[PromptSet]) -> dict[str, str]:
    keys = zip(prompts, pair_keys_of(prompts, prompt_sets), strict=True)
    return {prompt.id: key.replace("\0pair\0", "/") for prompt, key in keys if key is not None}


def _possible_roles(prompt: Prompt, served: tuple[Role, ...], is_pool: bool) -> tuple[Role, ...]:
    """Return the roles that a prompt may serve; `is_pool` says that declared `train` covers identify as well."""
    declared: Mapping[Role | None, tuple[Role, ...]] = {
        None: ROLES,
        "test": ("test",),
        "identify": ("identify",),
        "train": ("identify", "train") if is_pool else ("train",),
    }
    return tuple(role for role in declared[prompt.split] if role in served)


def pair_keys_of(prompts: Sequence[Prompt], prompt_sets: Sequence[PromptSet]) -> list[str | None]:
    """Return a key for each prompt in a pair: equal for matched prompts of tasks that `pairs_with` links."""
    family: dict[str, str] = {}

    def root(task: str) -> str:
        while family.get(task, task) != task:
            task = family[task]
        return task

    for prompt_set in prompt_sets:
        if prompt_set.spec.pairs_with is not None:
            first, second = sorted((root(prompt_set.spec.name), root(prompt_set.spec.pairs_with)))
            family[second] = first
    return [
        f"{root(prompt.task)}\0pair\0{prompt.pair}" if prompt.pair is not None else None for prompt in prompts
    ]


def _groups(
    prompts: Sequence[Prompt], possible: Sequence[tuple[Role, ...]], pair_keys: Sequence[str | None]
) -> list[list[int]]:
    """Return groups of indices that must serve one role.

    A prompt that cannot test but repeats one that only can is left out first: were it kept until groups are
    formed, all that it repeats would follow it.
    """
    import numpy as np

    tests_only = np.array([roles == ("test",) for roles in possible])
    cannot_test = np.array(["test" not in roles for roles in possible])
    tested_pairs = {key for key, only in zip(pair_keys, tests_only, strict=True) if only and key is not None}
    beside_test = np.array([key in tested_pairs for key in pair_keys])
    likeness = Likeness([prompt.text for prompt in prompts])
    beside_test |= likeness.beside(cannot_test, tests_only)
    kept = ~(beside_test & cannot_test) & np.array([bool(roles) for roles in possible])
    labels = likeness.groups(among=kept, links=pair_links(pair_keys))
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index in np.flatnonzero(kept).tolist():
        members[int(labels[index])].append(index)
    return list(members.values())


def pair_links(pair_keys: Sequence[str | None]) -> NDArray[np.int64]:
    """Return indices [links, 2] that chain the prompts of each pair."""
    import numpy as np

    last: dict[str, int] = {}
    links = []
    for index, key in enumerate(pair_keys):
        if key is not None:
            if key in last:
                links.append((last[key], index))
            last[key] = index
    return np.array(links, dtype=np.int64).reshape(-1, 2)


def _assign(
    groups: Sequence[list[int]],
    prompts: Sequence[Prompt],
    possible: Sequence[tuple[Role, ...]],
    fractions: Mapping[Role, float],
    seed: int,
) -> dict[int, Role]:
    """Return a role for each prompt that serves one.

    Groups with a choice draw a role in proportion to the room left in it, the largest groups first, which
    ends close to the fractions in every task.
    """
    room: defaultdict[tuple[str, Role], float] = defaultdict(float)
    for group in groups:
        for index in group:
            for role, share in _shares(possible[index], fractions).items():
                room[prompts[index].task, role] += share

    assigned: dict[int, Role] = {}

    def give(group: Sequence[int], role: Role) -> None:
        for index in group:
            if role in possible[index]:
                assigned[index] = role
                room[prompts[index].task, role] -= 1

    free = []
    for group in groups:
        options = [role for role in ROLES if all(role in possible[index] for index in group)]
        if len(options) > 1:
            free.append((group, options))
        else:
            give(group, options[0] if options else _strongest(group, possible))
    free.sort(key=lambda entry: (-len(entry[0]), _draw(seed, _key(prompts[entry[0][0]]))))
    generator = random.Random(f"splits {seed}")
    for group, options in free:
        weights = [sum(max(room[prompts[index].task, role], 0.0) for index in group) for role in options]
        if not any(weights):
            weights = [fractions[role] for role in options]
        give(group, generator.choices(options, weights if any(weights) else None)[0])
    return assigned


def _shares(possible: tuple[Role, ...], fractions: Mapping[Role, float]) -> dict[Role, float]:
    total = sum(fractions[role] for role in possible)
    return {role: fractions[role] / total if total else 1 / len(possible) for role in possible}


def _strongest(group: Sequence[int], possible: Sequence[tuple[Role, ...]]) -> Role:
    """Return the role of a group without a common one: test where a member can do nothing else."""
    if any(possible[index] == ("test",) for index in group):
        return "test"
    able = Counter(role for index in group for role in possible[index])
    return max(ROLES, key=lambda role: able[role])


def _key(prompt: Prompt) -> str:
    return f"{prompt.task}\0id\0{prompt.id}"


def _draw(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed}\0{key}".encode()).hexdigest()
