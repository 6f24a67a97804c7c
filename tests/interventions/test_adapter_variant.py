"""An adapter answers as it does in PEFT, is taken out without a trace, and belongs to its base alone."""

from __future__ import annotations

import copy
import json
import sys
from itertools import product

import pytest
import torch
import yaml

from harness.base.files import read_json, read_jsonl
from harness.checkpoints.adapter import adapted
from harness.cli.main import main
from harness.interventions.base import Prepared, Variant
from harness.interventions.spec import find_variant
from harness.models.load import DEMO_FOLDER
from harness.models.moe import find_moe
from harness.routing.capture import RoutingCapture
from harness.training.answers import answers_of
from harness.training.examples import Example, collate

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`"),
]
IDS = torch.arange(100, 228).reshape(4, 32)
ATTENTION = {"target_modules": ["q_proj", "v_proj"]}
EXPERTS = {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
BOTH = ATTENTION | {"target_parameters": EXPERTS["target_parameters"]}
HEAD = {"target_modules": ["lm_head", "v_proj"]}
WHOLE = {"target_modules": ["v_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


def saved_adapter(model, folder, base: str | None = None, **targets):
    """Let PEFT write a random adapter of a copy of a model; returns the logits of its own model."""
    torch.manual_seed(3)
    config = peft.LoraConfig(r=8, lora_alpha=64, init_lora_weights=False, **targets)
    wrapped = peft.get_peft_model(copy.deepcopy(model), config).eval()
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            # What PEFT writes whole: of a head with LoRA on it base's own weights too.
            if "modules_to_save" in name or "lm_head.base_layer" in name:
                value.add_(0.1 * torch.randn(value.shape))
    wrapped.save_pretrained(folder)
    content = read_json(folder / "adapter_config.json") | {"base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return logits(wrapped)


def specify(folder, **fields):
    spec = {"name": "mine", "description": "Mine.", "intervention": "adapter", "path": "adapter", **fields}
    (folder / "mine.yaml").write_text(yaml.safe_dump(spec))
    return find_variant("mine", [folder])


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        *product(["qwen3_moe", "mixtral", "olmoe", "gpt_oss"], [ATTENTION, EXPERTS, BOTH]),
        ("mixtral", HEAD),
        ("mixtral", WHOLE),
    ],
)
def test_logits_are_those_of_peft_and_the_model_is_as_before_afterwards(tiny_model, tmp_path, kind, targets):
    model = tiny_model(kind)
    expected = saved_adapter(model, tmp_path / "adapter", **targets)
    spec, moe = specify(tmp_path), find_moe(model)
    made, before = Prepared(Variant("mine", spec)), logits(model)
    modules = [name for name, _ in model.named_modules()]
    capture = RoutingCapture(moe)
    with spec.in_memory(moe, made):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
        with capture.installed():
            logits(model)
    assert capture.take(len(IDS)).experts.shape[-1] == 2
    assert not torch.allclose(expected, before, atol=1e-3)
    assert torch.equal(logits(model), before)
    assert [name for name, _ in model.named_modules()] == modules
    assert not any(value.requires_grad for value in model.parameters())


def test_what_base_predicts_is_base_s_while_an_adapter_has_another_head(tiny_model, tmp_path):
    """Drift keeps base's hidden states alone, and makes logits of them beside the variant's."""
    model = tiny_model("mixtral")
    batch = collate([Example((5, 6, 7), (8, 9, 2), "retain")], 0, torch.device("cpu"))
    answers = answers_of(model, batch)
    before = answers.logits(slice(None))
    saved_adapter(model, tmp_path / "adapter", **WHOLE)
    with adapted(model, tmp_path / "adapter"):
        assert torch.equal(answers.logits(slice(None)), before)
        assert not torch.allclose(answers_of(model, batch).logits(slice(None)), before, atol=1e-3)


@pytest.fixture
def adapter(demo, tmp_path):
    """The folder to include of an adapter of the demo model."""
    saved_adapter(demo.moe.model, tmp_path / "adapter", str(DEMO_FOLDER), **BOTH)
    specify(tmp_path)
    return tmp_path


def run(folder, *more: str) -> int:
    command = ["run", "--include", str(folder), "--intervention", "mine", "--baselines", "none"]
    command += ["--limit", "8", "--max-new-tokens", "8", "--capability", "none"]
    return main([*command, "--output", str(folder / "run"), *more])


@pytest.mark.slow
def test_a_run_and_a_comparison_of_it(adapter):
    assert run(adapter) == 0
    command = ["compare", "demo", str(adapter / "adapter"), "--limit", "8", "--max-new-tokens", "8"]
    assert main([*command, "--capability", "none", "--output", str(adapter / "compared")]) == 0
    answers = {
        (place, name): [
            row["response"]
            for row in read_jsonl(adapter / f"{place}/variants/{name}/responses/demo_benign.jsonl")
        ]
        for place, name in (("run", "base"), ("run", "mine"), ("compared", "base"), ("compared", "adapter"))
    }
    assert answers["run", "base"] == answers["compared", "base"] != answers["run", "mine"]
    assert answers["run", "mine"] == answers["compared", "adapter"]
    assert not list((adapter / "run/variants").rglob("*.safetensors"))


def test_the_dry_run_counts_the_adapter_beside_base(adapter, capsys):
    def memory(*more: str) -> int:
        capsys.readouterr()
        assert run(adapter, "--dry-run", "--json", *more) == 0
        return json.loads(capsys.readouterr().out)["memory_bytes"]

    size = (adapter / "adapter/adapter_model.safetensors").stat().st_size
    assert memory() - memory("--intervention", "base") == size


def refused(folder, capsys, *more: str) -> str:
    assert run(folder, *more) == 2
    assert not (folder / "run").exists()
    return capsys.readouterr().err.splitlines()[-1].removeprefix("harness: ")


def test_an_adapter_of_another_base_is_one_line(adapter, tiny_model, tmp_path, capsys):
    folder, config = adapter / "adapter", adapter / "adapter/adapter_config.json"
    mismatch = f"the adapter in {folder} does not belong to 'demo': "
    content = read_json(config) | {"base_model_name_or_path": "somebody/another-moe"}
    config.write_text(json.dumps(content))
    assert refused(adapter, capsys).startswith(
        f"{mismatch}its base is somebody/another-moe; where that is the same"
    )
    specify(adapter, any_base=True)
    assert run(adapter, "--dry-run") == 0
    capsys.readouterr()
    saved_adapter(tiny_model("qwen3_moe"), folder, **BOTH)
    assert refused(adapter, capsys).startswith(mismatch)
    saved_adapter(tiny_model("deepseek_v3"), folder, target_modules=["kv_a_proj_with_mqa"])
    assert refused(adapter, capsys).startswith(mismatch)


def test_what_is_no_lora_adapter_is_one_line(adapter, capsys):
    folder = adapter / "adapter"
    config = read_json(folder / "adapter_config.json")
    (folder / "adapter_config.json").write_text(json.dumps(config | {"bias": "all"}))
    assert refused(adapter, capsys).endswith("bias: expected none, found all")
    (folder / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": "pissa_niter_4"}))
    assert "init_lora_weights: pissa_niter_4 changes base's own weights" in refused(adapter, capsys)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").unlink()
    assert refused(adapter, capsys) == (
        f"'{folder}' holds no adapter_model.safetensors: expected the folder of a PEFT adapter"
    )


def test_without_peft_it_says_what_to_install(adapter, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert refused(adapter, capsys).endswith("pip install 'moe-safety-harness[peft]'")


def test_vllm_refuses_it_by_name(adapter, monkeypatch, capsys):
    monkeypatch.setattr("harness.engines.vllm.kind.why_vllm_is_unusable", lambda gpu: None)
    line = refused(adapter, capsys, "--engine", "vllm")
    assert line.startswith("engine vllm cannot serve variant 'mine' (intervention 'adapter')")
