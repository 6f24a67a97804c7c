"""The frozen proof of a whole run: it holds for what was trained, and one touched weight breaks it."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.base.files import read_json, read_jsonl
from harness.checkpoints.delta import applied, load_delta
from harness.checkpoints.proof import frozen_unchanged
from harness.data.prompts import Prompt
from harness.engines.transformers import TransformersEngine
from harness.models.load import DEMO_FOLDER, ModelRef, load_model
from harness.runs.summary import read_summary

TRAINED = ["unsafe_experts", "random_experts", "all_experts"]


@pytest.fixture
def merged(small_run, tmp_path):
    return shutil.copytree(small_run / "variants/unsafe_experts/model", tmp_path / "model")


def selected(small_run, name="unsafe_experts"):
    return {tuple(e) for e in read_json(small_run / f"variants/{name}/selection.json")["experts"]}


@pytest.mark.parametrize("name", TRAINED)
def test_the_runs_proof_names_the_trained_experts_alone(small_run, name):
    proof = read_json(small_run / f"variants/{name}/proof.json")
    trained = {tuple(expert) for expert in proof["trained_experts"]}
    changed = {tuple(expert) for expert in proof["changed_experts"]}
    unmoved = {tuple(expert) for expert in proof["unmoved_experts"]}
    assert proof["frozen_unchanged"] is True
    assert proof["violations"] == []
    assert trained == selected(small_run, name)
    assert changed | unmoved == trained
    assert changed
    silent = read_json(small_run / f"variants/{name}/delta.json")["without_gradient"]
    assert {tuple(expert) for expert in silent} <= unmoved
    assert read_summary(small_run).variants[name].frozen_unchanged is True


def test_the_proof_can_be_repeated_on_the_checkpoint_that_was_kept(small_run, merged):
    assert frozen_unchanged(DEMO_FOLDER, merged, selected(small_run)).unchanged


@pytest.mark.parametrize(
    "part", ["q_proj", "mlp.gate.weight", "embed_tokens", "input_layernorm", "model.norm", "another expert"]
)
def test_one_touched_frozen_weight_breaks_the_proof(small_run, merged, part):
    weights = load_file(merged / "model.safetensors")
    trained = selected(small_run)
    if part == "another expert":
        layer, expert = next((la, e) for la in range(4) for e in range(32) if (la, e) not in trained)
        part = f"layers.{layer}.mlp.experts.{expert}.down_proj"
    name = next(name for name in weights if part in name)
    weights[name].view(torch.int16).view(-1)[5] ^= 1  # the last bit of one value
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    proof = frozen_unchanged(DEMO_FOLDER, merged, trained)
    assert not proof.unchanged
    assert name in proof.violations[0]


def test_the_kept_checkpoint_says_what_the_run_recorded(small_run, merged):
    """What was evaluated in memory, in float32, is what a user gets who loads the checkpoint."""
    loaded = load_model(ModelRef("merged", merged), dtype="float32", device="cpu")
    recorded = read_jsonl(small_run / "variants/unsafe_experts/responses/demo_harmful.jsonl")
    prompts = [Prompt(row["id"], row["prompt"], "demo_harmful", "harmful") for row in recorded]
    engine = TransformersEngine(loaded, batch_size=64)
    results = [row for result in engine.generate(engine.batches(prompts), 32) for row in result.responses]
    assert {row.id: row.response for row in results} == {row["id"]: row["response"] for row in recorded}


def test_the_kept_checkpoint_is_the_base_with_the_delta_bit_for_bit(small_run, merged, demo):
    delta = load_delta(small_run / "variants/unsafe_experts/delta.safetensors")
    loaded = load_model(ModelRef("merged", merged), dtype="float32", device="cpu")
    other = dict(loaded.moe.model.named_parameters())
    with applied(demo.moe, delta):
        assert all(torch.equal(value, other[name]) for name, value in demo.moe.model.named_parameters())
    assert not all(torch.equal(value, other[name]) for name, value in demo.moe.model.named_parameters())
