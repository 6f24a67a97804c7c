"""Arrays of other engines: what is read, how they are fitted to a model, and what no router can have chosen."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from recorded_routing import int32, npy

from harness.base.errors import BadInputError
from harness.models.moe import find_moe
from harness.routing.arrays import decoded, fitted
from harness.routing.recorded import read_recorded


def array(tokens: int = 5, layers: int = 4) -> np.ndarray:
    """Two of the demo's 32 experts for each token and layer."""
    first = np.arange(tokens * layers).reshape(tokens, layers) % 31
    return np.stack([first, first + 1], axis=-1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int32, np.int64])
def test_every_published_form_is_the_same_array(demo, kind):
    values = array().astype(kind)
    for given in (npy(values), int32(values), values.tolist()):
        np.testing.assert_array_equal(fitted(decoded(given), 5, demo.moe), array())


def test_places_of_dense_layers_are_left_out(tiny_model):
    """In this model layer 0 of three is dense."""
    moe = find_moe(tiny_model("qwen3_moe"))
    assert moe.layer_indices == [1, 2]
    routed = array(4, 2) % 8
    whole = np.concatenate([np.full((4, 1, 2), -1), routed], axis=1)
    for given in (npy(whole), int32(whole), npy(routed), int32(routed)):
        np.testing.assert_array_equal(fitted(decoded(given), 4, moe), routed)


def wrong(token: int, layer: int, pair: list[int]) -> np.ndarray:
    values = array()
    values[token, layer] = pair
    return values


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (npy(array())[:-2], "not whole base64"),
        (npy(array())[:-4], "not a whole .npy array"),
        (int32(array())[:-8], "39 numbers, expected those of 5 tokens"),
        (base64.b64encode(b"abcdef").decode(), "6 bytes are neither a .npy array nor whole int32 numbers"),
        (npy(array(6)), "6 tokens, expected 5 (prompt + answer - 1"),
        (npy(array(5, 3)), "3 layers, expected 4 MoE layers"),
        (npy(array()[..., :1]), "1 experts per token, expected 2"),
        (npy(array()[0]), "expected [tokens, layers, k], found [4, 2]"),
        (npy(np.zeros_like(array())), "all zeros: nothing was recorded"),
        (npy(wrong(2, 3, [1, 32])), "token 2, layer 3: expert 32, expected 0 to 31"),
        (npy(wrong(0, 1, [-1, 4])), "token 0, layer 1: expert -1, expected 0 to 31"),
        (npy(wrong(4, 0, [7, 7])), "token 4, layer 0: experts [7, 7], expected no expert twice"),
        (npy(array().astype(float)), "expected whole numbers, found float64"),
        ([[1, 2], [3]], "its lists are not of equal lengths"),
        (3, "expected base64 or lists of numbers, found a int"),
    ],
)
def test_what_fits_no_model_is_said(demo, given, problem):
    with pytest.raises(ValueError, match=r".") as error:
        fitted(decoded(given), 5, demo.moe)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_no_pickle_is_read():
    harmful = np.array([{"a": 1}], dtype=object)
    with pytest.raises(ValueError, match=r"not a whole \.npy array"):
        decoded(npy(harmful))


def test_phases_are_counted_by_hand(demo, tmp_path):
    """Three prompt tokens, six generated: two of reasoning, four of the answer, whose last is never routed."""
    path = tmp_path / "one.jsonl"
    path.write_text(
        '{"task": "t", "kind": "benign", "prompt": "Hi", "prompt_tokens": 3, "generated_tokens": 6, '
        f'"reasoning_tokens": 2, "response": "Hello.", "routed_experts": {array(8).tolist()}}}\n'
    )
    (line,) = read_recorded(path)
    counts = line.counts("0", demo.moe)
    tokens = {
        phase: counts.of(phase)[1].tolist() for phase in ("prompt", "generation", "reasoning", "answer")
    }
    assert tokens == {"prompt": [3], "generation": [5], "reasoning": [2], "answer": [3]}
    # The answer's first token is routed at place 5: the window is places 1 to 7.
    assert counts.of("decision")[1].tolist() == [7]
    assert counts.of("prompt")[0][0, 0].nonzero()[0].tolist() == [0, 1, 4, 5, 8, 9]
    assert counts.mass is None


THOUGHT = {"role": "assistant", "content": "Paris.", "reasoning_content": "The user asks."}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"prompt_tokens": 3}, "generated_tokens: missing"),
        ({"prompt_tokens": 0, "generated_tokens": 2}, "prompt_tokens: expected at least 1, found 0"),
        ({"prompt_tokens": 3, "generated_tokens": 3}, "routed_experts: missing"),
        (
            {"prompt_tokens": 3, "generated_tokens": 3, "reasoning_tokens": 4},
            "reasoning_tokens: 4, expected at",
        ),
        (
            {"prompt_tokens": 3, "generated_tokens": 3, "response": "<think>Well.</think>Yes."},
            "reasoning_tokens: missing",
        ),
        (
            {"prompt_tokens": 3, "routed_expert": []},
            "routed_expert: unknown key, did you mean 'routed_experts'?",
        ),
        ({"response": {"error": "busy"}}, "expected that of an OpenAI-style server with one choice"),
        (
            {
                "response": {
                    "choices": [{"message": THOUGHT}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 9},
                }
            },
            "reasoning_tokens: missing",
        ),
        (
            {
                "prompt_tokens": 2,
                "response": {"text": "", "meta_info": {"prompt_tokens": 1, "completion_tokens": 9}},
            },
            "prompt_tokens: 2, but the server's response says 1",
        ),
    ],
)
def test_a_line_that_says_too_little_is_one_line(tmp_path, line, problem):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"task": "t", "kind": "benign", "prompt": "Hi", **line}) + "\n")
    with pytest.raises(BadInputError) as error:
        list(read_recorded(path))
    assert str(error.value).startswith(f"{path}: row 1: ")
    assert problem in str(error.value)
