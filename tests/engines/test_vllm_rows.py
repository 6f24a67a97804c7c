"""Steps of vLLM become one row a position: chunks in order, what was computed twice once, nothing missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines.vllm_rows import padded, request_rows
from harness.engines.vllm_worker import StepRows
from harness.errors import HarnessError


def step(request: str, start: int, values: list[int]) -> StepRows:
    """Return rows of one layer with k = 1, whose expert says what it was."""
    experts = np.array(values, dtype=np.int16)[:, None, None]
    return StepRows(request, start, experts, experts.astype(np.float32), experts.astype(np.float32))


def chosen(rows: StepRows) -> list[int]:
    return rows.experts[:, 0, 0].tolist()


@given(st.data())
def test_chunks_of_interleaved_requests_are_put_in_order(data):
    lengths = data.draw(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1))
    waiting = dict.fromkeys(lengths, 0)
    steps = []
    while waiting:
        name = data.draw(st.sampled_from(sorted(waiting)))
        n = data.draw(st.integers(1, lengths[name] - waiting[name]))
        steps.append(
            step(name, waiting[name], [10 * ord(name) + i for i in range(waiting[name], waiting[name] + n)])
        )
        waiting[name] += n
        if waiting[name] == lengths[name]:
            del waiting[name]
            # One token beyond the last that counts.
            if data.draw(st.booleans()):
                steps.append(step(name, lengths[name], [7]))
    for name, rows in request_rows(steps, lengths).items():
        assert chosen(rows) == [10 * ord(name) + i for i in range(lengths[name])]
        assert rows.logits is not None
        assert rows.weights[:, 0, 0].tolist() == chosen(rows)


def test_what_was_computed_again_counts_once_and_the_later_rows_stand():
    steps = [step("a", 0, [1, 2, 3]), step("a", 3, [4]), step("a", 0, [11, 12, 13, 14]), step("a", 4, [15])]
    assert chosen(request_rows(steps, {"a": 5})["a"]) == [11, 12, 13, 14, 15]


def test_a_position_without_a_row_is_no_routing():
    with pytest.raises(HarnessError, match="kept the routing of 3 of 4 tokens of request a"):
        request_rows([step("a", 0, [1, 2]), step("a", 3, [4])], {"a": 4})


def test_rows_of_a_request_that_nobody_made_are_refused():
    with pytest.raises(HarnessError, match="a request that was not made: b"):
        request_rows([step("a", 0, [1]), step("b", 0, [1])], {"a": 1})


def test_answers_are_laid_out_as_a_left_padded_batch():
    answers = [step("a", 0, [1, 2, 3]), step("b", 0, [4, 5, 6, 7])]
    captured, mask = padded(answers, [1, 3])
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert captured.experts[0, :, :, 0].tolist() == [[0, 0, 1, 2, 3], [4, 5, 6, 7, 0]]


def test_a_kernel_that_never_wrote_its_choice_is_noticed():
    with pytest.raises(HarnessError, match="expert 0 for every token"):
        padded([step("a", 0, [0, 0, 0])], [2])
