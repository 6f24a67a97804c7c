"""LoRA on everything, trained by PEFT beside the experts: same data, same steps, base's weights as they were."""

from __future__ import annotations

import copy

import pytest
import torch

from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.interventions.base import Prepared, Variant
from harness.interventions.spec import find_variant
from harness.models.moe import find_moe
from harness.pipeline.train_adapter import _digests
from harness.runs.summary import read_summary
from harness.training.adapter_bank import targets

peft = pytest.importorskip("peft")
IDS = torch.arange(100, 228).reshape(4, 32)
# retain_kl reads the frozen model, that is, the adapter switched off.
COMMAND = (
    *("run", "--intervention", "lora_all", "--baselines", "unsafe_experts", "--limit", "12"),
    *("--capability", "none", "--objectives", "refuse=1,retain_kl=0.5", "--max-new-tokens", "8"),
    *("--set", "training.max_steps=4", "--set", "training.checkpoint_every=1"),
)


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "run"
    assert main([*COMMAND, "--output", str(folder)]) == 0
    return folder


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_the_adapter_is_one_that_peft_loads_and_answers_with_the_same_logits(run, demo):
    folder, spec, before = run / "variants/lora_all/adapter", find_variant("lora_all"), logits(demo.moe.model)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    made = Prepared(Variant("lora_all", spec), trained_in=folder)
    with spec.in_memory(demo.moe, made):
        inside = logits(demo.moe.model)
    expected = logits(peft.PeftModel.from_pretrained(copy.deepcopy(demo.moe.model), folder).eval())
    torch.testing.assert_close(inside, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(inside, before, atol=1e-3)
    assert torch.equal(logits(demo.moe.model), before)


def test_it_learns_from_what_the_experts_learn_from_and_its_loss_falls(run):
    adapter, delta = (
        read_json(run / f"variants/{name}.json") for name in ("lora_all/adapter", "unsafe_experts/delta")
    )
    assert (adapter["examples"], adapter["steps"]) == (delta["examples"], delta["steps"])
    logs = [read_jsonl(run / f"variants/{name}/train.jsonl") for name in ("lora_all", "unsafe_experts")]
    assert [row["answer_tokens"] for row in logs[0]] == [row["answer_tokens"] for row in logs[1]]
    # An adapter starts as base does, and a bank too.
    assert logs[0][0]["loss"] == pytest.approx(logs[1][0]["loss"], rel=1e-4)
    assert logs[0][-1]["loss"] < logs[0][0]["loss"]


def test_the_proof_is_of_all_of_bases_weights(run, tiny_model):
    variant = read_summary(run).variants["lora_all"]
    assert variant.frozen_unchanged
    assert variant.trained_parameters == read_json(run / "variants/lora_all/adapter.json")["parameters"] > 0
    moe = find_moe(tiny_model("mixtral"))
    before = _digests(moe)
    with torch.no_grad():
        moe.layers[1].experts.down_proj[3, 0, 0] += 1
    after = _digests(moe)
    assert [name for name in before if before[name] != after[name]] == [
        "model.layers.1.mlp.experts.down_proj"
    ]


def test_a_finished_run_is_left_as_it_is(run, capsys):
    written = {path: path.stat().st_mtime_ns for path in (run / "variants").rglob("*.*") if path.is_file()}
    assert main([*COMMAND, "--output", str(run)]) == 0
    assert "loading" not in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_adapter(run, tmp_path, monkeypatch):
    from harness.training.resume import Checkpoints

    write = Checkpoints.write

    def killed(self, state):
        write(self, state)
        if state.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "write", killed)
    assert main([*COMMAND, "--output", str(tmp_path / "run")]) == 1
    monkeypatch.undo()
    assert main([*COMMAND, "--output", str(tmp_path / "run")]) == 0
    name = "variants/lora_all/adapter/adapter_model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--set", "training.early_stopping.every=2"),
            "lora_all is trained in one process and to its last step",
        ),
        (("--engine", "vllm"), "engine vllm cannot serve variant 'lora_all' (intervention 'train_lora')"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, capsys, more, message
):
    monkeypatch.setattr("harness.engines.vllm.kind.why_vllm_is_unusable", lambda gpu: None)
    assert main([*COMMAND, *more, "--output", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_attention_and_every_experts_matrices_are_found(tiny_model, family):
    linear, parameters = targets(find_moe(tiny_model(family)))
    assert {"o_proj"} <= set(linear)
    assert parameters == ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]
