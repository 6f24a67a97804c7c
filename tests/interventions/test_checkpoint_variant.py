"""Any checkpoint answers the same prompts as base: dense or MoE, with its own tokenizer or through base's."""

from __future__ import annotations

import json
import weakref
from itertools import product

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.config import make_config
from harness.engines import in_memory
from harness.metrics.route_drift import KINDS, PHASES
from harness.models.load import DEMO_FOLDER, load_model, outline_model, resolve_model
from harness.pipeline.pieces import pieces
from harness.pipeline.plan import make_plan

_DENSE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def variants(tmp_path, demo, tiny_model):
    """A folder to include, with a dense checkpoint and a mixtral one, and the specifications of both."""
    dense = LlamaForCausalLM(LlamaConfig(vocab_size=1500, eos_token_id=2, **_DENSE))
    dense.save_pretrained(tmp_path / "llama")
    demo.tokenizer.save_pretrained(tmp_path / "llama")
    tiny_model("mixtral").save_pretrained(tmp_path / "mixtral")
    for name, folder in (("dense", "llama"), ("sparse", "mixtral")):
        specify(tmp_path, name, model=f"./{folder}")
    return tmp_path


def specify(folder, name, **fields):
    spec = {"name": name, "description": "Another.", "intervention": "checkpoint", **fields}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))


def run(include, name, *more: str, baselines: str = "none") -> int:
    command = ["run", "--include", str(include), "--intervention", name, "--baselines", baselines]
    command += ["--limit", "8", "--max-new-tokens", "8", "--capability", "none"]
    return main([*command, "--output", str(include / "run"), *more])


def responses(folder, variant) -> list[str]:
    rows = read_jsonl(folder / f"run/variants/{variant}/responses/demo_benign.jsonl")
    return [row["response"] for row in rows]


@pytest.fixture
def loads(monkeypatch):
    """The models that are loaded during a test, each with how many others were alive at that moment."""
    load, models, seen = in_memory.load_model, [], []

    def watched(ref, *args, **kwargs):
        seen.append((ref.name, sum(model() is not None for model in models)))
        loaded = load(ref, *args, **kwargs)
        models.append(weakref.ref(loaded.moe.model))
        return loaded

    monkeypatch.setattr(in_memory, "load_model", watched)
    return seen


@pytest.mark.slow
def test_base_is_freed_before_another_model_is_loaded_and_comes_back_after_it(variants, loads):
    """The order of a run: base, the intervention, then baselines; drift from base needs base in between."""
    assert run(variants, "dense", baselines="sparse,system_prompt") == 0
    assert loads == [("demo", 0), ("llama", 0), ("mixtral", 0), ("demo", 0)]
    record = read_json(variants / "run/run.json")
    assert len(record["variants"]["dense"]["sha256"]) == 64
    assert len({tuple(responses(variants, name)) for name in ("base", "dense", "sparse")}) == 3
    assert all(evaluated["skipped"] is None for evaluated in record["evaluated"].values())


@pytest.mark.slow
def test_a_comparison_never_holds_both_models_in_memory(variants, loads):
    command = ["compare", str(variants / "llama"), str(variants / "mixtral"), "--limit", "8"]
    command += ["--tasks", "demo_harmful,demo_benign", "--max-new-tokens", "8", "--capability", "none"]
    assert main([*command, "--output", str(variants / "run")]) == 0
    assert [name for name, _ in loads][:2] == ["llama", "mixtral"]
    assert {others for _, others in loads} == {0}


def test_the_dry_run_counts_the_largest_model_and_never_two(variants, tiny_model, capsys):
    def memory(name: str) -> int:
        capsys.readouterr()
        assert run(variants, name, "--dry-run", "--json", "--dtype", "float32") == 0
        return json.loads(capsys.readouterr().out)["memory_bytes"]

    alone = memory("base")
    assert memory("sparse") == alone
    large = tiny_model("mixtral", hidden_size=256, intermediate_size=512)
    large.save_pretrained(variants / "large")
    specify(variants, "large", model="./large")
    weights = 4 * sum(value.numel() for value in large.parameters())
    demo = 4 * sum(value.numel() for value in outline_model(resolve_model("demo")).model.parameters())
    assert weights > demo
    assert memory("large") == alone - demo + weights


def test_a_copy_of_base_answers_as_base_does(tmp_path):
    specify(tmp_path, "copy", model=str(DEMO_FOLDER))
    assert run(tmp_path, "copy") == 0
    assert responses(tmp_path, "copy") == responses(tmp_path, "base")
    # The time that is left counts every stage of it.
    record = read_json(tmp_path / "run/run.json")
    plan = make_plan(make_config({}, kept=record["config"]))
    assert {name for name in record["stages"] if "copy" in name} <= pieces(plan, "cpu").keys()


def routes(folder, name) -> dict:
    return read_json(folder / f"run/variants/{name}/routes.json")


@pytest.mark.slow
def test_a_copy_keeps_all_of_bases_routes_and_shuffled_routers_lose_those_of_their_layer(tmp_path, loads):
    """All three read the same tokens; what follows the shuffled layer sees other hidden states."""
    demo = load_model(resolve_model("demo"), device="cpu")
    place, shuffled = 2, tmp_path / "shuffled"
    with torch.no_grad():
        weight = demo.moe.layers[place].router.weight
        weight.copy_(weight[torch.randperm(len(weight), generator=torch.Generator().manual_seed(0))])
    demo.moe.model.save_pretrained(shuffled)
    demo.tokenizer.save_pretrained(shuffled)
    layers = demo.moe.layer_indices
    specify(tmp_path, "copy", model=str(DEMO_FOLDER))
    specify(tmp_path, "other", model="./shuffled")
    answers = ("--set", "evaluation.drift_answers=4")
    assert run(tmp_path, "copy", *answers, baselines="other") == 0
    # Base's routes are read before it is freed, and kept for both.
    assert loads == [("demo", 0), (DEMO_FOLDER.name, 0), ("shuffled", 0)]
    for name in ("copy", "other"):
        found = routes(tmp_path, name)
        assert found["not_compared"] is None
        assert {(row["kind"], row["phase"]) for row in found["figures"]} == set(product(KINDS, PHASES))
        for row in found["figures"]:
            is_before = name == "copy" or (row["layer"] is not None and row["layer"] < layers[place])
            assert (row["kept"] == 1 and row["kl"] == 0) == is_before
        kept = {row["layer"]: row["kept"] for row in found["figures"] if row["phase"] == "prompt"}
        assert name == "copy" or min(kept, key=kept.__getitem__) == layers[place]
    assert "routes" in (tmp_path / "run/report.md").read_text()
    asked = (tmp_path / "run/variants/copy/responses/demo_benign.jsonl").stat().st_mtime_ns
    loads.clear()
    assert run(tmp_path, "copy", "--set", "evaluation.drift_answers=6", baselines="other") == 0
    assert (tmp_path / "run/variants/copy/responses/demo_benign.jsonl").stat().st_mtime_ns == asked
    assert max(others for _, others in loads) == 0
    found = routes(tmp_path, "copy")["figures"]
    assert {(row["prompts"], row["kept"], row["kl"]) for row in found} == {(6, 1, 0)}


def test_routes_of_other_layers_or_of_none_are_not_compared_and_the_run_says_why(variants):
    assert run(variants, "dense", baselines="sparse") == 0
    assert routes(variants, "dense") == {"not_compared": "llama routes no token to experts", "figures": []}
    found = routes(variants, "sparse")
    assert "mixtral has other MoE layers than base: layers 0" in found["not_compared"]
    assert found["figures"] == []


@pytest.mark.slow
def test_it_is_asked_again_when_the_checkpoint_changes_and_not_when_it_moves(variants):
    assert run(variants, "sparse") == 0
    file = variants / "run/variants/sparse/responses/demo_benign.jsonl"
    written = file.stat().st_mtime_ns
    (variants / "mixtral").rename(variants / "elsewhere")
    specify(variants, "sparse", model="./elsewhere")
    assert run(variants, "sparse") == 0
    assert file.stat().st_mtime_ns == written
    config = variants / "elsewhere/generation_config.json"
    config.write_text(config.read_text().replace('"eos_token_id": 2', '"eos_token_id": 3'))
    assert run(variants, "sparse") == 0
    assert file.stat().st_mtime_ns != written


def test_another_tokenizer_is_said_and_read_through(variants, demo, capsys):
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(variants / "llama")
    other.add_tokens(["Name three fruits"])
    other.save_pretrained(variants / "llama")
    assert run(variants, "dense") == 0
    said = "has another tokenizer than demo: the same prompts are other tokens to it"
    assert f"dense (llama) {said}" in capsys.readouterr().err
    assert f"dense {said}." in (variants / "run/report.md").read_text()


def refused(variants, name, capsys, *more: str) -> str:
    assert run(variants, name, *more) == 2
    assert not (variants / "run").exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("harness: ")]
    return line


def test_what_cannot_be_asked_is_refused_before_anything_is_written(variants, tiny_model, capsys):
    specify(variants, "gone", model="./gone")
    assert f"no model at '{variants / 'gone'}'" in refused(variants, "gone", capsys)
    (variants / "gone").mkdir()
    assert "holds no config.json" in refused(variants, "gone", capsys)
    tiny_model("mixtral", vocab_size=1600).save_pretrained(variants / "larger")
    specify(variants, "larger", model="./larger")
    assert refused(variants, "larger", capsys).endswith(
        "holds no tokenizer, and its vocabulary is another than that of 'demo': 1600 tokens, not 1500"
    )
    (variants / "mixtral/model.safetensors").write_bytes(b"")
    assert "model.safetensors" in refused(variants, "sparse", capsys)


def test_prompts_that_do_not_fit_the_other_models_context_are_refused(variants, tiny_model, capsys):
    tiny_model("mixtral", max_position_embeddings=16).save_pretrained(variants / "short")
    specify(variants, "short", model="./short")
    assert "prompts do not fit the context of 'short'" in refused(variants, "short", capsys)


def test_base_may_be_dense_where_nothing_acts_on_experts(variants, capsys):
    model = ("--model", str(variants / "llama"), "--tasks", "demo_harmful,demo_benign")
    assert "is dense" in refused(variants, "unsafe_experts", capsys, *model)
    assert run(variants, "sparse", *model) == 0
    assert "dense, without experts" in (variants / "run/report.md").read_text()
