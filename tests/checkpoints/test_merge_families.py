"""In every family a delta goes into the files that transformers writes, and the proof sees only trained experts."""

from __future__ import annotations

import pytest
import torch
from deltas import flip_bit, random_delta, some_experts
from moe_families import FAMILIES, build, skip_if_missing

from harness.checkpoints.merge import write_merged
from harness.checkpoints.proof import frozen_unchanged
from harness.models.auto import load_weights
from harness.models.load import ModelRef
from harness.models.moe import Expert, find_moe
from harness.models.stored import StoredExperts, UntraceableError

THROUGH_TRANSFORMERS = {"ernie4_5_vl_moe"}
"""Its text and vision experts share one list on disk."""


@pytest.fixture(params=FAMILIES, scope="module")
def family(request):
    skip_if_missing(request.param)
    return request.param


@pytest.fixture(scope="module")
def base(family, tmp_path_factory):
    """One family after another; the tests of a family share its checkpoint."""
    folder = tmp_path_factory.mktemp(family) / "base"
    build(family).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def moe(base):
    return find_moe(load_weights(base)[0])


def test_experts_read_from_the_files_are_those_that_transformers_loads(family, base, moe):
    if family in THROUGH_TRANSFORMERS:
        with pytest.raises(UntraceableError, match="shares its tensors"):
            StoredExperts(ModelRef("m", base))
        return
    stored = StoredExperts(ModelRef("m", base))
    for layer in moe.layers:
        for name in layer.weights:
            for expert in (0, 3, layer.n_experts - 1):
                found = stored.value(Expert(layer.index, expert), name)
                assert found.dtype == layer.weight(name).dtype
                assert torch.equal(found, layer.weight(name)[expert])


def test_a_delta_changes_its_experts_alone_and_the_proof_sees_a_bit_of_any_other(family, base, moe, tmp_path):
    experts, out = some_experts(moe), tmp_path / "merged"
    delta = random_delta(moe, experts)
    result = write_merged(ModelRef(family, base), delta, out)
    assert result.method == ("loaded" if family in THROUGH_TRANSFORMERS else "streamed")

    proof = frozen_unchanged(base, out, set(experts))
    assert proof.violations == ()
    assert proof.changed_experts == tuple(experts)
    assert not proof.unmoved_experts

    loaded = find_moe(load_weights(out)[0])
    for expert, name, value in delta.values():
        assert torch.equal(loaded.layer(expert.layer).weight(name)[expert.expert], value)

    if family in THROUGH_TRANSFORMERS:
        return
    # The neighbour of a trained expert, in the same tensor where one holds all of them.
    other = Expert(experts[0].layer, 0)
    written = StoredExperts(ModelRef("m", out))
    piece = next(written.pieces(other, "down_proj", written.value(other, "down_proj")))
    flip_bit(piece.place(written.places))
    proof = frozen_unchanged(base, out, set(experts))
    assert proof.violations == (
        f"{piece.tensor}: differs, though layer {other.layer} expert 0 was not trained",
    )
