"""`harness models inspect`: facts from a checkpoint or its config.json alone, and one line where there are none."""

from __future__ import annotations

import json
import resource
import shutil
import time
from pathlib import Path

import pytest
import torch
from moe_families import build
from safetensors.torch import load_file, save_file

from harness.cli.main import main
from harness.models.load import DEMO_FOLDER

QWEN3_30B_A3B = {
    "model_type": "qwen3_moe",
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "mlp_only_layers": [],
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "first_k_dense_replace": 3,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}


@pytest.fixture
def inspected(capsys):
    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["models", "inspect", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys):
    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["models", "inspect", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("harness: ")
        assert captured.err.count("\n") == 1
        return captured.err

    return run


@pytest.fixture
def folder(tmp_path):
    def write(config: object) -> Path:
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return tmp_path

    return write


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A copy of the demo that a test may damage."""
    return Path(shutil.copytree(DEMO_FOLDER, tmp_path / "copy"))


def test_the_demo(inspected):
    facts = json.loads(inspected("demo", "--json"))
    assert facts == {
        "supported": True,
        "model_type": "qwen3_moe",
        "moe_layers": [0, 1, 2, 3],
        "experts_per_layer": 32,
        "experts_per_token": 2,
        "shared_experts": 0,
        "layout": {
            "transposed": False,
            "gate": "concatenated",
            "biases": False,
            "normed": False,
            "tensors": {"gate_up_proj": [32, 128, 128], "down_proj": [32, 128, 64]},
        },
        "routers": 4,
        "quantization": None,
        "parameters": 3_552_128,
        "trainable_if_selected": 3 * 128 * 64,
        "set_aside": {},
        "thinking": "none that the chat template knows of",
    }
    assert facts == json.loads(inspected("demo", "--json", "--meta"))


def test_the_table_says_the_same(inspected):
    text = inspected("demo")
    rows = dict(line.rstrip().split("  ", 1) for line in text.splitlines() if not line.startswith(" "))
    shown = {name: value.strip() for name, value in rows.items()}
    assert shown["model type"] == "qwen3_moe"
    assert shown["supported"] == "yes, by config.json and the weights' files"
    assert shown["MoE layers"] == "4: 0-3"
    assert shown["experts per layer"] == "32"
    assert shown["matrices"] == "[out, in]"
    assert shown["one expert"] == "24,576 (0.69% of all)"


@pytest.mark.parametrize(
    ("config", "layers", "experts", "parameters", "expert"),
    [
        (QWEN3_30B_A3B, list(range(48)), 128, 30_532_122_624, 3 * 2048 * 768),
        (DEEPSEEK_V3, list(range(3, 61)), 256, 671_026_404_352, 3 * 7168 * 2048),
    ],
    ids=["Qwen3-30B-A3B", "DeepSeek-V3"],
)
def test_config_json_alone_tells_of_large_models_in_seconds_and_without_memory(
    inspected, folder, config, layers, experts, parameters, expert
):
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = json.loads(inspected(folder(config), "--meta", "--json"))
    assert time.process_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB
    assert (facts["moe_layers"], facts["experts_per_layer"]) == (layers, experts)
    assert (facts["parameters"], facts["trainable_if_selected"]) == (parameters, expert)
    assert facts["quantization"] == config.get("quantization_config", {}).get("quant_method")


def test_a_saved_checkpoint_of_a_family_that_sees(inspected, tmp_path):
    build("qwen3_vl_moe").save_pretrained(tmp_path)
    assert json.loads(inspected(tmp_path, "--json")) == json.loads(inspected(tmp_path, "--json", "--meta"))


def test_a_lost_expert_is_noticed_from_the_headers(refused, checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.layers.2.mlp.experts.3.down_proj.weight"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert "are not those of its config.json: model.layers.2.mlp.experts" in refused(checkpoint)
    assert main(["models", "inspect", str(checkpoint), "--meta"]) == 0


def test_a_lost_tensor_is_noticed_from_the_headers(refused, checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert refused(checkpoint).endswith("are not those of its config.json: model.norm.weight is missing\n")


def test_weights_of_another_size_are_noticed_from_the_headers(refused, checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    weights["model.norm.weight"] = torch.zeros(5)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert "model.norm.weight is [5], expected [128]" in refused(checkpoint)


def test_a_cut_file_is_noticed(refused, checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "model.safetensors: not a whole safetensors file" in refused(checkpoint)


def test_without_weights(refused, folder):
    assert "no safetensors weights, expected model.safetensors or" in refused(folder(QWEN3_30B_A3B))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("{", "config.json: not valid JSON: line 1"),
        ("[]", "config.json: expected a mapping of keys to values, found a list"),
        ("{}", "config.json has no model_type"),
        ({"model_type": "qwen3_mo"}, "unknown model type 'qwen3_mo': did you mean 'qwen3_moe'?"),
        ({"model_type": "zzzzzzzzz"}, "unknown model type 'zzzzzzzzz': transformers"),
        ({"model_type": "llama"}, "model type 'llama' is dense"),
        ({"model_type": "vit"}, "model type 'vit' is not a causal language model"),
        ({"model_type": "llama4"}, "model type 'llama4' runs every expert on every token"),
        ({"model_type": "qwen3_moe", "num_experts": "many"}, "num_experts"),
        ({"model_type": "qwen3_moe", "hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_bad_configurations(refused, folder, config, expected):
    assert expected in refused(folder(config), "--meta")


def test_no_folder(refused, tmp_path):
    assert "no folder 'someone/something': expected one with a config.json" in refused("someone/something")
    assert "holds no config.json" in refused(tmp_path)
