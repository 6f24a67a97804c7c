"""Experts are followed through layouts that transformers reads but would not write."""

from __future__ import annotations

import shutil

import pytest
import torch
from moe_families import build
from safetensors.torch import load_file, save_file

from harness.models.auto import load_weights
from harness.models.load import ModelRef
from harness.models.moe import Expert, find_moe
from harness.models.stored import StoredExperts, UntraceableError
from harness.models.weights import bytes_of, places


@pytest.fixture
def saved(tmp_path):
    def save(family, name="checkpoint", **settings):
        build(family).save_pretrained(tmp_path / name, **settings)
        return tmp_path / name

    return save


def edit(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def assert_followed(folder):
    """Each expert reads as transformers loads it, and goes back to the bytes it came from."""
    stored, moe = StoredExperts(ModelRef("m", folder)), find_moe(load_weights(folder)[0])
    lying = places(folder)
    for expert in moe.all_experts():
        for name in moe.layer(expert.layer).weights:
            value = stored.value(expert, name)
            assert torch.equal(value, moe.layer(expert.layer).weight(name)[expert.expert])
            for piece in stored.pieces(expert, name, value):
                assert piece.place(lying).read_bytes() == bytes_of(piece.value)
    return stored


def test_fused_tensors_of_a_family_that_writes_one_tensor_per_expert(saved):
    folder = saved("qwen3_moe", save_original_format=False)
    assert "model.layers.1.mlp.experts.gate_up_proj" in places(folder)
    stored = assert_followed(folder)
    value = stored.value(Expert(1, 5), "down_proj")
    (piece,) = stored.pieces(Expert(1, 5), "down_proj", value)
    assert (piece.tensor, piece.row) == ("model.layers.1.mlp.experts.down_proj", 5)


def test_one_tensor_per_expert_and_projection(saved):
    stored = assert_followed(saved("mixtral"))
    value = stored.value(Expert(2, 5), "gate_up_proj")
    prefix = "model.layers.2.block_sparse_moe.experts.5"
    pieces = list(stored.pieces(Expert(2, 5), "gate_up_proj", value))
    assert [(piece.tensor, piece.row) for piece in pieces] == [
        (f"{prefix}.w1.weight", None),
        (f"{prefix}.w3.weight", None),
    ]
    assert torch.equal(torch.cat([piece.value for piece in pieces]), value)


def test_tensors_that_lie_transposed_on_disk_alone(saved):
    """The published Qwen3-VL checkpoints hold [in, out], which transformers turns by the shape it finds."""
    folder = saved("qwen3_vl_moe")
    names = [name for name in places(folder) if ".experts." in name]

    def turn(tensors):
        return {
            name: value.transpose(1, 2).contiguous() if name in names else value
            for name, value in tensors.items()
        }

    edit(folder, turn)
    name = "model.language_model.layers.0.mlp.experts.down_proj"
    model = load_weights(folder)[0]
    assert places(folder)[name].shape == tuple(model.get_parameter(name).transpose(1, 2).shape)
    assert_followed(folder)


def test_experts_lie_in_the_order_of_their_numbers_not_of_their_names(tmp_path, tiny_model):
    """Name 10 sorts before name 2."""
    tiny_model("mixtral", num_local_experts=12).save_pretrained(tmp_path / "model")
    assert_followed(tmp_path / "model")


def test_experts_in_several_files(saved):
    folder = saved("qwen3_moe", max_shard_size="20KB")
    assert len({place.file for place in places(folder).values()}) > 3
    assert_followed(folder)


def test_the_hash_of_experts_follows_their_values_and_no_others(saved, tmp_path):
    folder = saved("mixtral")
    chosen = [Expert(0, 3), Expert(2, 1)]
    first = StoredExperts(ModelRef("m", folder)).digest(chosen)
    assert StoredExperts(ModelRef("m", folder)).digest(reversed(chosen)) == first
    other = shutil.copytree(folder, tmp_path / "other")
    for part, same in ((".layers.0.block_sparse_moe.experts.4.w2", True), ("experts.3.w2", False)):
        name = next(name for name in places(other) if part in name)
        place = places(other)[name]
        place.write(place.read() + 1)
        assert (StoredExperts(ModelRef("m", other)).digest(chosen) == first) is same


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda name: None if name.endswith("experts.5.w2.weight") else name, "7 tensors"),
        (lambda name: None if ".experts." in name and "w2" in name else name, "holds no tensor for"),
    ],
    ids=["one expert", "all experts"],
)
def test_files_without_some_experts_are_not_followed(saved, change, reason):
    folder = saved("mixtral")
    edit(folder, lambda tensors: {name: value for name, value in tensors.items() if change(name)})
    with pytest.raises(UntraceableError, match=reason):
        StoredExperts(ModelRef("m", folder))
