"""A random walk over sets of experts, by swaps within layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Proposals per member and expert of a layer. With 50 members in 48 layers of 128 experts an eighth of them is enough to
# forget the start.
_PROPOSALS = 4
_MOST = 200_000
_FEWEST = 4_000


def walk(
    start: Sequence[int], use: Sequence[float], n_experts: int, low: float, high: float, seed: int
) -> list[int]:
    """Walk from a set of experts to others whose use is in a band, long enough to forget the start.

    A proposal swaps one member, or two one after another, for experts of the same layers; it is taken where the set
    stays in the band. It is as likely as its reverse, so in the end every set that can be reached is as likely as
    another. Two at once reach sets whose way leads through too much or too little use.

    Args:
        start: a set in the band; expert e of layer l is l * n_experts + e.
        use: of each expert.
        n_experts: experts per layer.
        low: the least use of a set in all.
        high: the most.
        seed: of the proposals.
    """
    generator = np.random.default_rng(seed)
    n = len(start)
    proposals = min(max(_PROPOSALS * n * n_experts, _FEWEST), _MOST)
    places, others = generator.integers(n, size=(2, proposals)).tolist()
    numbers, other_numbers = generator.integers(n_experts, size=(2, proposals)).tolist()
    doubles = (generator.random(proposals) < 0.5).tolist()
    members, total = list(start), math.fsum(use[expert] for expert in start)
    is_member = bytearray(len(use))
    for expert in members:
        is_member[expert] = True
    first = [expert - expert % n_experts for expert in members]  # of the member's layer
    for place, number, is_double, other, other_number in zip(
        places, numbers, doubles, others, other_numbers, strict=True
    ):
        old, new = members[place], first[place] + number
        if is_member[new]:
            continue
        after = total + use[new] - use[old]
        if not is_double:
            if low <= after <= high:
                is_member[old], is_member[new], members[place], total = False, True, new, after
            continue
        is_member[old], is_member[new], members[place] = False, True, new
        second_old, second_new = members[other], first[other] + other_number
        after += use[second_new] - use[second_old]
        if not is_member[second_new] and low <= after <= high:
            is_member[second_old], is_member[second_new], members[other] = False, True, second_new
            total = after
        else:
            is_member[old], is_member[new], members[place] = True, False, old
    return members
