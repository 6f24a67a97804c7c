"""Routing counts add up, survive the disk, and say so when they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import BadInputError, HarnessError
from harness.routing.counts import (
    PHASES,
    STORED_PHASES,
    RoutingCounts,
    join,
    reorder,
)
from harness.routing.files import load_counts, save_routing


def counts_of(seed: int = 0, n: int = 3, layers: int = 2, experts: int = 5, k: int = 2) -> RoutingCounts:
    """Random but possible counts: every token goes to k different experts."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(0, 6, size=(n, len(STORED_PHASES))).astype(np.int32)
    counts = np.zeros((n, len(STORED_PHASES), layers, experts), dtype=np.int32)
    for sample, phase in np.ndindex(tokens.shape):
        for layer in range(layers):
            for _ in range(tokens[sample, phase]):
                counts[sample, phase, layer, draw.choice(experts, size=k, replace=False)] += 1
    ids = tuple(f"p{seed}-{i}" for i in range(n))
    return RoutingCounts(ids, tuple(range(1, layers + 1)), k, counts, tokens)


def assert_same(a: RoutingCounts, b: RoutingCounts) -> None:
    assert (a.ids, a.layers, a.experts_per_token) == (b.ids, b.layers, b.experts_per_token)
    assert a.counts.dtype == b.counts.dtype == np.int32
    for phase in PHASES:
        for one, other in zip(a.of(phase), b.of(phase), strict=True):
            np.testing.assert_array_equal(one, other)


def test_all_is_prompt_and_generation_together():
    counts = counts_of()
    prompt, generation = counts.of("prompt"), counts.of("generation")
    both = counts.of("all")
    np.testing.assert_array_equal(both[0], prompt[0] + generation[0])
    np.testing.assert_array_equal(both[1], prompt[1] + generation[1])


@pytest.mark.parametrize("phase", PHASES)
def test_a_layers_counts_sum_to_tokens_times_k(phase):
    counts, tokens = counts_of(k=3).of(phase)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts.sum(axis=-1), np.repeat(tokens[:, None] * 3, 2, axis=1))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 99),
    sample=st.integers(0, 2),
    phase=st.integers(0, 2),
    layer=st.integers(0, 1),
    expert=st.integers(0, 4),
    change=st.sampled_from([-1, 1, 7]),
)
def test_one_count_changed_anywhere_is_found_and_named(seed, sample, phase, layer, expert, change):
    counts = counts_of(seed)
    counts.check("a file")
    counts.counts[sample, phase, layer, expert] += change
    with pytest.raises(
        HarnessError,
        match=rf"a file: prompt 'p{seed}-{sample}' .* layer {layer + 1} \({STORED_PHASES[phase]}\)",
    ):
        counts.check("a file")


def test_one_token_too_many_is_found():
    counts = counts_of()
    counts.tokens[1, 0] += 1
    with pytest.raises(HarnessError, match=r"prompt 'p0-1' .* layer 1 \(prompt\)"):
        counts.check("a file")


def test_joined_counts_stand_behind_one_another():
    a, b = counts_of(1), counts_of(2, n=2)
    both = join([a, b])
    assert both.ids == a.ids + b.ids
    np.testing.assert_array_equal(both.counts[:3], a.counts)
    np.testing.assert_array_equal(both.tokens[3:], b.tokens)


@pytest.mark.parametrize("change", [{"layers": (0, 1)}, {"experts_per_token": 1}])
def test_counts_of_different_models_are_not_joined(change):
    with pytest.raises(BadInputError, match="different models"):
        join([counts_of(), replace(counts_of(), **change)])


def test_counts_of_different_numbers_of_experts_are_not_joined():
    with pytest.raises(BadInputError, match="different models"):
        join([counts_of(experts=5), counts_of(experts=6)])


def test_reordering_moves_whole_prompts():
    counts = counts_of()
    turned = reorder(counts, ["p0-2", "p0-0", "p0-1"])
    assert turned.ids == ("p0-2", "p0-0", "p0-1")
    np.testing.assert_array_equal(turned.counts[0], counts.counts[2])
    np.testing.assert_array_equal(turned.tokens[1], counts.tokens[0])
    assert_same(reorder(turned, counts.ids), counts)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), layers=st.integers(1, 3), experts=st.integers(2, 6))
def test_saving_and_loading_gives_the_same_counts(tmp_path_factory, seed, n, layers, experts):
    path = tmp_path_factory.mktemp("counts") / "task.safetensors"
    counts = counts_of(seed, n, layers, experts)
    save_routing(counts, path)
    assert_same(load_counts(path), counts)


def test_counts_that_lie_otherwise_in_memory_are_saved_as_they_read(tmp_path):
    counts = counts_of()
    turned = np.ascontiguousarray(counts.counts.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    tokens = np.asfortranarray(counts.tokens)
    assert not turned.flags["C_CONTIGUOUS"]
    assert not tokens.flags["C_CONTIGUOUS"]
    save_routing(replace(counts, counts=turned, tokens=tokens), tmp_path / "task.safetensors")
    assert_same(load_counts(tmp_path / "task.safetensors"), counts)


def test_ids_may_hold_any_text(tmp_path):
    counts = replace(counts_of(), ids=('a "quoted" id', "zwölf\n", "三"))
    save_routing(counts, tmp_path / "task.safetensors")
    assert load_counts(tmp_path / "task.safetensors").ids == counts.ids


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_file_that_was_cut_short_is_refused(tmp_path, kept):
    path = tmp_path / "task.safetensors"
    save_routing(counts_of(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadInputError, match="not a whole file of routing counts"):
        load_counts(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="not a whole file of routing counts"):
        load_counts(tmp_path / "none.safetensors")


def test_a_file_of_something_else_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(BadInputError, match="not a whole file of routing counts"):
        load_counts(tmp_path / "other.safetensors")


def test_a_file_whose_counts_were_tampered_with_is_refused(tmp_path):
    counts = counts_of()
    counts.counts[0, 0, 0, 0] += 1
    save_routing(counts, tmp_path / "task.safetensors")
    with pytest.raises(HarnessError, match=r"task\.safetensors: prompt 'p0-0'"):
        load_counts(tmp_path / "task.safetensors")


def test_without_reasoning_a_file_has_the_phases_that_earlier_versions_wrote_and_still_joins_others(tmp_path):
    thought, plain = counts_of(1), counts_of(2)
    assert thought.of("reasoning")[1].any()
    plain.counts[:, 3], plain.tokens[:, 3] = 0, 0
    save_routing(plain, tmp_path / "plain.safetensors")
    read = load_counts(tmp_path / "plain.safetensors")
    assert read.counts.shape[1] == 3
    np.testing.assert_array_equal(read.of("answer")[0], plain.of("generation")[0])
    assert not read.of("reasoning")[1].any()
    both = join([read, thought])
    np.testing.assert_array_equal(both.of("reasoning")[1], [0, 0, 0, *thought.of("reasoning")[1]])
    np.testing.assert_array_equal(both.of("answer")[0][3:], thought.of("answer")[0])
