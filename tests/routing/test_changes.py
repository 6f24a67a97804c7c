"""Routes of the same tokens under two models, compared token by token."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.routing.changes import Routes, changes, shared_end


def by_hand(base, own, answer, shared, k):
    """Return (tokens, kept, divergence) of one row and layer, by phase, from lists of (experts, logits) per token."""
    found = []
    for first, last in ((answer + shared, answer), (answer, 1)):
        tokens, kept, divergence = 0, 0.0, 0.0
        for place in range(first, last, -1):
            (before, p), (after, q) = base[-place], own[-place]
            tokens += 1
            kept += len({*before} & {*after}) / k
            p, q = ([math.exp(x) / sum(map(math.exp, row)) for x in row] for row in (p, q))
            divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        found.append((tokens, kept, divergence))
    return found


@given(st.data())
def test_rows_are_compared_from_their_ends_as_by_hand(data):
    k, experts = data.draw(st.integers(1, 3)), 4
    n, rows = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    longer = data.draw(st.integers(0, 3))
    seed = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    width = 8
    base_logits = torch.randn(n, rows, width, experts, generator=seed)
    own_logits = torch.randn(n, rows, width + longer, experts, generator=seed)
    base = Routes(base_logits.topk(k).indices.to(torch.uint8), base_logits)
    own = Routes(own_logits.topk(k).indices.to(torch.uint8), own_logits)
    answers = [data.draw(st.integers(1, 4)) for _ in range(rows)]
    shared = [data.draw(st.integers(0, width - answer)) for answer in answers]
    found = changes(base, own, answers, shared)
    for row in range(rows):
        for layer in range(n):
            sides = [
                list(zip(one.experts[layer, row].tolist(), one.logits[layer, row].tolist(), strict=True))
                for one in (base, own)
            ]
            expected = by_hand(*sides, answers[row], shared[row], k)
            for phase, (tokens, kept, divergence) in enumerate(expected):
                assert found.tokens[phase, row] == tokens
                assert found.kept[phase, row, layer] == pytest.approx(kept)
                assert found.divergence[phase, row, layer] == pytest.approx(divergence, abs=1e-5)


def routes(logits, k=1):
    logits = torch.tensor(logits)[None, None]  # one layer, one row
    return Routes(logits.topk(k).indices, logits)


def test_a_model_compared_with_itself_keeps_everything():
    same = routes([[0.0, 1.0, 2.0]] * 5, k=2)
    found = changes(same, same, [2], [3])
    assert found.tokens.tolist() == [[3], [1]]  # of an answer's two tokens the last is never routed
    assert found.kept[:, 0, 0].tolist() == [3, 1]
    assert found.divergence.sum() == 0


def test_an_expert_that_has_no_chance_any_more_makes_kl_infinite_where_it_counts():
    base = [[0.0, 0.0, 0.0]] * 3
    masked = [[0.0, torch.finfo(torch.float32).min, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    found = changes(routes(base), routes(masked), [1], [2])
    assert found.divergence[:, 0, 0].tolist() == [math.inf, 0.0]
    assert changes(routes(base), routes(masked), [1], [1]).divergence[0, 0, 0] == 0.0


def test_without_logits_there_is_no_divergence():
    experts = torch.zeros(1, 1, 3, 1, dtype=torch.uint8)
    assert changes(Routes(experts, None), Routes(experts, None), [1], [2]).divergence is None


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_the_shared_end_is_the_longest(one, other, end):
    n = shared_end([*one, *end], [*other, *end])
    assert n >= len(end)
    first, second = [*one, *end], [*other, *end]
    assert first[len(first) - n :] == second[len(second) - n :]
    assert n in (len(first), len(second)) or first[-n - 1] != second[-n - 1]
