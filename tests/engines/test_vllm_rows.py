"""Steps of vLLM become one row per position: chunks in order, repeated positions once, nothing missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import HarnessError
from harness.engines.vllm.rows import RequestRows, captured_batch, padded, request_rows
from harness.engines.vllm.worker import Step


def step(*parts: tuple[str, int, list[int]]) -> Step:
    """Return a step of requests' rows, of one layer with k = 1, whose expert says what it was."""
    values = [value for _, _, own in parts for value in own]
    experts = np.array(values, dtype=np.int16)[:, None, None]
    numbers = experts.astype(np.float32)
    starts, lengths = np.array([start for _, start, _ in parts]), np.array([len(own) for _, _, own in parts])
    return Step([name for name, _, _ in parts], starts, lengths, experts, numbers, numbers)


def chosen(rows: RequestRows) -> list[int]:
    return rows.experts[:, 0, 0].tolist()


def expected(name: str, start: int, end: int) -> list[int]:
    return [10 * ord(name) + i for i in range(start, end)]


@given(st.data())
def test_chunks_of_requests_that_share_steps_are_put_in_order(data):
    lengths = data.draw(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1))
    at = dict.fromkeys(lengths, 0)
    steps = []
    while waiting := [name for name in lengths if at[name] < lengths[name]]:
        together = data.draw(st.permutations(waiting))[: data.draw(st.integers(1, len(waiting)))]
        parts = []
        for name in together:
            end = data.draw(st.integers(at[name] + 1, lengths[name]))
            # One token beyond the last that counts.
            more = [7] if end == lengths[name] and data.draw(st.booleans()) else []
            parts.append((name, at[name], expected(name, at[name], end) + more))
            at[name] = end
        steps.append(step(*parts))
    found = request_rows(steps, lengths)
    assert list(found) == list(lengths)
    for name, rows in found.items():
        assert chosen(rows) == expected(name, 0, lengths[name])
        assert rows.weights[:, 0, 0].tolist() == chosen(rows)
        assert rows.logits is not None
        assert rows.logits[:, 0, 0].tolist() == chosen(rows)


def test_what_was_computed_again_counts_once_and_the_later_rows_stand():
    steps = [
        step(("a", 0, [1, 2, 3]), ("b", 0, [8])),
        step(("a", 3, [4])),
        step(("b", 1, [9]), ("a", 0, [11, 12, 13, 14])),
        step(("a", 4, [15])),
    ]
    found = request_rows(steps, {"a": 5, "b": 2})
    assert chosen(found["a"]) == [11, 12, 13, 14, 15]
    assert chosen(found["b"]) == [8, 9]


def test_a_position_without_a_row_is_no_routing():
    with pytest.raises(HarnessError, match="kept the routing of 3 of 4 tokens of request a"):
        request_rows([step(("b", 0, [5]), ("a", 0, [1, 2])), step(("a", 3, [4]))], {"b": 1, "a": 4})


def test_rows_of_a_request_that_nobody_made_are_refused():
    with pytest.raises(HarnessError, match="a request that was not made: b"):
        request_rows([step(("a", 0, [1]), ("b", 0, [1]))], {"a": 1})


def test_answers_are_laid_out_as_a_left_padded_batch():
    found = request_rows([step(("a", 0, [1, 2, 3]), ("b", 0, [4, 5, 6, 7]))], {"a": 3, "b": 4})
    captured, mask = padded(list(found.values()), [1, 3])
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert captured.experts[0, :, :, 0].tolist() == [[0, 0, 1, 2, 3], [4, 5, 6, 7, 0]]


def test_what_is_beyond_an_answers_limit_is_dropped_with_its_routing():
    steps = [step(("a", 0, [1, 2, 3, 4]), ("b", 0, [5, 6, 7, 1]))]
    whole = [[22, 23, 24, 25], [34, 35]]
    captured, masks, token_ids = captured_batch(
        steps, ["a", "b"], [[21], [31, 32, 33]], whole, [[22, 23], [34, 35]], [1, 2]
    )
    assert captured.experts[0, :, :, 0].tolist() == [[0, 0, 1, 2], [5, 6, 7, 1]]
    assert token_ids.tolist() == [[0, 0, 21, 22], [31, 32, 33, 34]]
    _, generation, decision, reasoning = masks.sum(dim=2).tolist()
    assert (generation, decision, reasoning) == ([1, 1], [2, 0], [1, 1])


def test_a_batch_has_the_phases_and_tokens_of_its_positions():
    steps = [step(("a", 0, [1, 2, 3]), ("b", 0, [4, 5, 6, 7]))]
    captured, masks, token_ids = captured_batch(
        steps, ["a", "b"], [[21], [31, 32, 33]], *[[[22, 23, 24], [34, 35]]] * 2, [0, 0]
    )
    assert captured.experts[0, :, :, 0].tolist() == [[0, 0, 1, 2, 3], [4, 5, 6, 7, 0]]
    assert token_ids.tolist() == [[0, 0, 21, 22, 23], [31, 32, 33, 34, 0]]
    prompt, generation, *_ = masks.int().tolist()
    assert prompt == [[0, 0, 1, 0, 0], [1, 1, 1, 0, 0]]
    assert generation == [[0, 0, 0, 1, 1], [0, 0, 0, 1, 0]]


def test_a_kernel_that_never_wrote_its_choice_is_noticed():
    found = request_rows([step(("a", 0, [0, 0, 0]))], {"a": 3})
    with pytest.raises(HarnessError, match="expert 0 for every token"):
        padded(list(found.values()), [2])


def test_rows_beyond_the_end_of_a_request_are_refused():
    with pytest.raises(HarnessError, match="routed position 3 of request a, expected at most 2"):
        request_rows([step(("a", 0, [1, 2, 3, 4]))], {"a": 2})
