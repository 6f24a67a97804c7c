"""The frozen proof holds when only trained experts differ, and fails at one changed bit anywhere else."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from harness.base.errors import BadInputError, HarnessError
from harness.checkpoints.proof import compare_checkpoints, frozen_unchanged, model_fingerprint

_SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def _qwen() -> Qwen3MoeForCausalLM:
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**_SHAPE, moe_intermediate_size=8, num_experts=4, num_experts_per_tok=2)
    ).bfloat16()


def _mixtral() -> MixtralForCausalLM:
    return MixtralForCausalLM(MixtralConfig(**_SHAPE, num_local_experts=4, tie_word_embeddings=True))


def _gpt_oss() -> GptOssForCausalLM:
    layers = ["full_attention"] * 2
    return GptOssForCausalLM(
        GptOssConfig(**_SHAPE, num_local_experts=4, num_experts_per_tok=2, layer_types=layers)
    )


_MODELS = {"qwen3_moe": _qwen, "mixtral": _mixtral, "gpt_oss": _gpt_oss}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    for name, make in _MODELS.items():
        make().save_pretrained(folder / name)
    return {name: folder / name for name in _MODELS}


def _one_ulp(path: Path, name: str, index: int = 0) -> None:
    """Move one stored value of one tensor to the next representable number."""
    tensors = load_file(path / "model.safetensors")
    integers = tensors[name].view({2: torch.int16, 4: torch.int32}[tensors[name].element_size()])
    integers.view(-1)[index] += 1
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def _copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "merged"))


@pytest.mark.parametrize("family", _MODELS)
def test_a_checkpoint_equals_itself(checkpoints: dict[str, Path], family: str) -> None:
    proof = frozen_unchanged(checkpoints[family], checkpoints[family], set())
    assert proof.unchanged
    assert proof.changed_experts == ()
    assert proof.compared == len(load_file(checkpoints[family] / "model.safetensors"))


@pytest.mark.parametrize("family", _MODELS)
def test_proof_holds_when_only_trained_experts_change(
    checkpoints: dict[str, Path], family: str, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoints[family], dtype="auto")
    with torch.no_grad():
        model.model.layers[0].mlp.experts.gate_up_proj[3] += 1
        model.model.layers[1].mlp.experts.down_proj[0] += 1
    model.save_pretrained(tmp_path / "merged")

    proof = frozen_unchanged(checkpoints[family], tmp_path / "merged", {(0, 3), (1, 0), (1, 2)})

    assert proof.unchanged
    assert proof.violations == ()
    assert proof.changed_experts == ((0, 3), (1, 0))
    assert proof.unmoved_experts == ((1, 2),)


@pytest.mark.parametrize("family", _MODELS)
def test_proof_fails_when_another_expert_changed(
    checkpoints: dict[str, Path], family: str, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoints[family], dtype="auto")
    with torch.no_grad():
        model.model.layers[1].mlp.experts.down_proj[2, 0, 0] += 1
    model.save_pretrained(tmp_path / "merged")

    proof = frozen_unchanged(checkpoints[family], tmp_path / "merged", {(0, 2), (1, 1)})

    assert not proof.unchanged
    assert len(proof.violations) == 1
    assert "layer 1 expert 2 was not trained" in proof.violations[0]


@pytest.mark.parametrize(
    "tensor",
    [
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.norm.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.0.mlp.gate.weight",
        "model.layers.1.mlp.experts.2.up_proj.weight",
    ],
)
def test_one_ulp_in_a_frozen_tensor_fails_the_proof_and_is_named(
    checkpoints: dict[str, Path], tensor: str, tmp_path: Path
) -> None:
    merged = _copy(checkpoints["qwen3_moe"], tmp_path)
    _one_ulp(merged, tensor)

    proof = frozen_unchanged(checkpoints["qwen3_moe"], merged, {(1, 1), (0, 2)})

    assert not proof.unchanged
    assert [line.split(":")[0] for line in proof.violations] == [tensor]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layer=st.integers(0, 1), expert=st.integers(0, 3), place=st.integers(0, 127))
def test_one_ulp_in_a_fused_tensor_is_assigned_to_its_expert(
    checkpoints: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    layer: int,
    expert: int,
    place: int,
) -> None:
    merged = _copy(checkpoints["gpt_oss"], tmp_path_factory.mktemp("ulp"))
    name = f"model.layers.{layer}.mlp.experts.gate_up_proj"  # [4 experts, 16, 32]
    _one_ulp(merged, name, expert * 512 + place)

    difference = compare_checkpoints(checkpoints["gpt_oss"], merged)

    assert dict(difference.experts) == {(layer, expert): (name,)}
    assert difference.others == ()


def test_negative_zero_is_not_zero_and_nan_equals_itself(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    first, second = (
        _copy(checkpoints["mixtral"], tmp_path / "a"),
        _copy(checkpoints["mixtral"], tmp_path / "b"),
    )
    for folder, sign in ((first, 1.0), (second, -1.0)):
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"][0] = float("nan")
        tensors["model.layers.0.input_layernorm.weight"][0] = 0.0 * sign
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert compare_checkpoints(first, second).others == ("model.layers.0.input_layernorm.weight: differs",)


@pytest.mark.parametrize("missing", ["model.norm.weight", "model.layers.1.mlp.gate.weight"])
def test_a_missing_tensor_fails_the_proof(checkpoints: dict[str, Path], missing: str, tmp_path: Path) -> None:
    merged = _copy(checkpoints["qwen3_moe"], tmp_path)
    tensors = load_file(merged / "model.safetensors")
    del tensors[missing]  # transformers would make a norm weight of ones in its place, as it is in the base
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})

    proof = frozen_unchanged(checkpoints["qwen3_moe"], merged, {(0, 0)})

    assert proof.violations == (f"{missing}: missing from the merged model",)


def test_an_added_tensor_fails_the_proof(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    merged = _copy(checkpoints["qwen3_moe"], tmp_path)
    tensors = load_file(merged / "model.safetensors")
    tensors["model.layers.0.mlp.adapter.weight"] = torch.ones(2, 2)
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})

    proof = frozen_unchanged(checkpoints["qwen3_moe"], merged, {(0, 0)})

    assert proof.violations == ("model.layers.0.mlp.adapter.weight: not in the base model",)


def test_another_dtype_and_another_shape_fail_the_proof(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    merged = _copy(checkpoints["qwen3_moe"], tmp_path)
    tensors = load_file(merged / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].float()
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:8].clone()
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})

    proof = frozen_unchanged(checkpoints["qwen3_moe"], merged, {(0, 0)})

    assert proof.violations == (
        "lm_head.weight: was bfloat16 [64, 16], is float32 [64, 16]",
        "model.norm.weight: was bfloat16 [16], is bfloat16 [8]",
    )


def test_a_base_in_another_layout_is_converted_before_comparing(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    base = _copy(checkpoints["qwen3_moe"], tmp_path)
    tensors = load_file(base / "model.safetensors")
    for layer in (0, 1):
        prefix = f"model.layers.{layer}.mlp.experts."
        parts = {
            n: [tensors.pop(f"{prefix}{e}.{n}_proj.weight") for e in range(4)] for n in ("gate", "up", "down")
        }
        gate_up = [torch.cat(pair) for pair in zip(parts["gate"], parts["up"], strict=True)]
        tensors[f"{prefix}gate_up_proj"] = torch.stack(gate_up)
        tensors[f"{prefix}down_proj"] = torch.stack(parts["down"])
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    merged = Path(shutil.copytree(checkpoints["qwen3_moe"], tmp_path / "new"))
    _one_ulp(merged, "model.layers.1.mlp.experts.2.up_proj.weight")

    difference = compare_checkpoints(base, merged)

    assert difference.converted
    assert dict(difference.experts) == {(1, 2): ("model.layers.1.mlp.experts.gate_up_proj",)}
    assert difference.others == ()


def test_shards_compare_like_one_file(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoints["mixtral"], dtype="auto")
    with torch.no_grad():
        model.model.layers[0].mlp.experts.down_proj[1] += 1
    model.save_pretrained(tmp_path / "sharded", max_shard_size="8KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").is_file()

    difference = compare_checkpoints(checkpoints["mixtral"], tmp_path / "sharded")

    assert list(difference.experts) == [(0, 1)]
    assert difference.others == ()
    assert not difference.converted


def test_a_checkpoint_without_whole_safetensors_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match=r"no safetensors weights, expected model\.safetensors"):
        compare_checkpoints(checkpoints["mixtral"], tmp_path)
    cut = _copy(checkpoints["mixtral"], tmp_path)
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HarnessError, match="not a whole safetensors file"):
        compare_checkpoints(checkpoints["mixtral"], cut)


def test_fingerprint_follows_weights_configuration_and_template_but_not_the_folder(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    original = model_fingerprint(checkpoints["mixtral"])
    copied = _copy(checkpoints["mixtral"], tmp_path)
    assert model_fingerprint(copied) == original
    (copied / "README.md").write_text("a note", encoding="utf-8")
    assert model_fingerprint(copied) == original

    (copied / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    with_template = model_fingerprint(copied)
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").write_text(json.dumps(config | {"num_experts_per_tok": 1}), encoding="utf-8")
    with_config = model_fingerprint(copied)
    _one_ulp(copied, "model.norm.weight")
    with_weight = model_fingerprint(copied)
    assert len({original, with_template, with_config, with_weight}) == 4

    with pytest.raises(BadInputError, match=r"no config\.json"):
        model_fingerprint(tmp_path)
