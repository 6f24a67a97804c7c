"""Masks from a file and pruned experts: evaluated like any variant, never written as weights."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from watched import routed

from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.interventions.base import INTERVENTIONS, Prepared, Variant
from harness.interventions.spec import find_variant
from harness.models.load import outline_model, resolve_model
from harness.runs.summary import read_summary


def specify(folder, **fields):
    spec = {"name": "mine", "description": "Mine.", "intervention": "mask", **fields}
    (folder / "mine.yaml").write_text(yaml.safe_dump(spec))


def masked_by(folder, content) -> None:
    (folder / "mask.json").write_text(json.dumps(content))
    specify(folder, path="mask.json")


def run(folder, *more: str) -> int:
    command = ["run", "--include", str(folder), "--intervention", "mine", "--baselines", "none"]
    command += ["--limit", "10", "--max-new-tokens", "8", "--capability", "none"]
    return main([*command, "--output", str(folder / "run"), *more])


PAIRS = {"activate": [[0, 3], [3, 5]], "silence": [[3, 1]]}
BY_LAYER = {"activate": {"0": [3], "3": [5]}, "silence": {"3": [1]}}
WEIGHTS = [[(place == 3) * 1.0 for place in range(32)], [0] * 32, [0] * 32]
WEIGHTS += [[{5: 1.0, 1: -1.0}.get(place, 0.0) for place in range(32)]]


@pytest.mark.parametrize("content", [PAIRS, BY_LAYER, {"weights": WEIGHTS}, WEIGHTS])
def test_every_form_of_a_mask_does_the_same_and_is_undone_exactly(demo, tmp_path, content):
    masked_by(tmp_path, content)
    spec = find_variant("mine", [tmp_path])
    made, before = Prepared(Variant("mine", spec)), routed(demo.moe)
    with spec.in_memory(demo.moe, made):
        chosen = routed(demo.moe)
    assert (chosen[0] == 3).any(-1).all()
    assert (chosen[3] == 5).any(-1).all()
    assert not (chosen[3] == 1).any()
    assert (before[3] == 1).any()
    assert torch.equal(routed(demo.moe), before)


@pytest.mark.slow
def test_a_run_of_a_mask_writes_no_weights_and_is_done_again_when_its_file_changes(tmp_path, capsys):
    masked_by(tmp_path, {"silence": {0: list(range(20))}})
    assert run(tmp_path, "--save-model") == 0
    file = tmp_path / "run/variants/mine/responses/demo_benign.jsonl"
    rows = read_jsonl(file)
    assert not list((tmp_path / "run/variants").rglob("*.safetensors"))
    capsys.readouterr()
    variant = str(tmp_path / "run/variants/mine")
    assert main(["models", "apply", "demo", variant, str(tmp_path / "out")]) == 2
    assert "holds no delta.safetensors" in capsys.readouterr().err
    masked_by(tmp_path, {"silence": {0: list(range(12, 32))}})
    assert run(tmp_path) == 0
    assert read_jsonl(file) != rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"silence": [[7, 1]]}, "layer 7 has no experts: the MoE layers are 0-3"),
        ({"activate": [[1, 32]]}, "layer 1 has no expert 32: it has experts 0 to 31"),
        ({"silence": {1: list(range(31))}}, "layer 1 would keep 1 experts, fewer than the 2 a token needs"),
        ({"activate": {1: [1, 2, 3]}}, "layer 1 would activate 3 experts, more than the 2 a token gets"),
        ({"activate": {1: [1]}, "silence": {1: [1]}}, "layer 1 would both silence and activate expert 1"),
        ({}, "expected experts to activate or to silence, found none"),
        ({"activte": []}, "activte: unknown key, did you mean 'activate'?"),
        ([[0.0, float("nan")]], "weights.0.1: expected a finite number, found 'NaN'"),
        ([[1, 0], [0, 1]], "weights: 2 rows of 2 numbers, expected 4 of 32: one per MoE layer and expert"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_line_before_anything_is_written(tmp_path, capsys, content, message):
    masked_by(tmp_path, content)
    assert run(tmp_path) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"harness: {tmp_path / 'mask.json'}: {message}"
    assert not (tmp_path / "run").exists()


def test_vllm_serves_silenced_experts_and_refuses_activated_ones_by_name(tmp_path, monkeypatch, capsys):
    masked_by(tmp_path, {"silence": {1: [4, 2]}})
    spec = find_variant("mine", [tmp_path])
    assert spec.served(Prepared(Variant("mine", spec))).masked == {1: [2, 4]}
    masked_by(tmp_path, {"activate": {1: [4]}})
    monkeypatch.setattr("harness.engines.vllm.kind.why_vllm_is_unusable", lambda gpu: None)
    assert run(tmp_path, "--engine", "vllm") == 2
    assert "engine vllm cannot serve variant 'mine' (intervention 'mask')" in capsys.readouterr().err


def test_pruned_experts_are_the_least_used_of_each_layer(tmp_path):
    specify(tmp_path, intervention="prune", share=0.26)
    assert run(tmp_path) == 0
    chosen = read_json(tmp_path / "run/variants/mine/selection.json")
    table = pd.read_parquet(tmp_path / "run/experts.parquet")
    table = table[table["phase"] == chosen["phase"]]
    use = table.assign(use=table["a_safe_n"] + table["a_unsafe_n"])
    pruned = {tuple(expert) for expert in chosen["experts"]}
    assert len(pruned) == 4 * 8
    for layer, rows in use.groupby("layer"):
        gone = np.array([(layer, expert) in pruned for expert in rows["expert"]])
        assert rows["use"][gone].max() <= rows["use"][~gone].min()
    summary = read_summary(tmp_path / "run")
    assert (summary.selection, summary.claims) == (None, [])
    report = (tmp_path / "run/report.md").read_text()
    assert "Nothing is claimed: no experts were chosen by score for mine." in report
    assert not any(word in report for word in ("least used", "the chosen experts", "did not choose them"))
    assert not list((tmp_path / "run/variants").rglob("*.safetensors"))


@pytest.mark.parametrize("share", [0.01, 0.98])
def test_a_share_that_takes_no_expert_or_too_many_is_one_line(tmp_path, capsys, share):
    specify(tmp_path, intervention="prune", share=share)
    assert run(tmp_path) == 2
    assert "experts per layer: expected 1 or more to go and 2 to stay" in capsys.readouterr().err


def test_a_pruned_expert_gets_no_token(demo, tmp_path):
    specify(tmp_path, intervention="prune", share=0.5)
    from harness.experts.draws import Selected
    from harness.experts.select import ExpertSelection

    use = {expert: float(expert.expert) for expert in demo.moe.all_experts()}
    selected = Selected(ExpertSelection("risk_diff", "all", tuple(demo.moe.all_experts()[:2])), use, 0)
    spec = find_variant("mine", [tmp_path])
    chosen = spec.choose(selected, outline_model(resolve_model("demo")), 0)
    before = routed(demo.moe)
    with spec.in_memory(demo.moe, Prepared(Variant("mine", spec), chosen)):
        assert routed(demo.moe).min() >= 16
    assert torch.equal(routed(demo.moe), before)
    assert "prune" in INTERVENTIONS
