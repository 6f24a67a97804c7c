"""A delta of an earlier run is a variant of its base, and of no other model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from deltas import saved_delta

from harness.base.files import read_json, read_jsonl
from harness.checkpoints.apply import apply_delta
from harness.cli.main import main
from harness.interventions.base import Prepared, Variant
from harness.interventions.spec import find_variant
from harness.models.load import load_model, resolve_model


@pytest.fixture(scope="module")
def delta(tmp_path_factory):
    """The folder of a delta of the demo model, and beside it a specification that names it by a relative path."""
    folder = tmp_path_factory.mktemp("deltas")
    demo = load_model(resolve_model("demo"), device="cpu")
    saved_delta(demo.moe.model, demo.ref.path, folder / "trained")
    spec = {"name": "earlier", "description": "Trained before.", "intervention": "delta", "path": "trained"}
    (folder / "earlier.yaml").write_text(yaml.safe_dump(spec))
    return folder


def run(include, output, *more: str) -> int:
    command = ["run", "--include", str(include), "--intervention", "earlier", "--baselines", "none"]
    command += ["--limit", "8", "--max-new-tokens", "8", "--capability", "none", "--output", str(output)]
    return main([*command, *more])


def test_it_answers_as_the_checkpoint_with_the_delta_merged_into_it(delta, tmp_path):
    apply_delta(resolve_model("demo"), delta / "trained", tmp_path / "merged")
    merged = load_model(resolve_model(str(tmp_path / "merged")), "float32", "cpu")
    loaded = load_model(resolve_model("demo"), "float32", "cpu")
    made = Prepared(Variant("earlier", find_variant("earlier", [delta])))
    ids = torch.arange(40, 400)[None]
    with torch.inference_mode():
        before = loaded.moe.model(ids).logits
        with made.intervention.in_memory(loaded.moe, made):
            inside = loaded.moe.model(ids).logits
        assert torch.equal(inside, merged.moe.model(ids).logits)
        assert not torch.equal(inside, before)
        assert torch.equal(loaded.moe.model(ids).logits, before)
    served = made.intervention.served(made)
    assert served is not None
    assert served.delta is not None


def test_a_run_of_it_trains_nothing_and_records_what_the_delta_holds(delta, tmp_path):
    assert run(delta, tmp_path / "run") == 0
    spec = read_json(tmp_path / "run" / "run.json")["variants"]["earlier"]
    assert spec["sha256"] == read_json(delta / "trained" / "delta.json")["sha256"]
    assert spec["base"] == "the base"
    folder = tmp_path / "run" / "variants"
    assert not (folder / "earlier" / "delta.safetensors").exists()
    answers = {
        name: [row["response"] for row in read_jsonl(folder / name / "responses" / "demo_benign.jsonl")]
        for name in ("base", "earlier")
    }
    assert answers["base"] != answers["earlier"]
    assert (read_json(tmp_path / "run" / "summary.json"))["variants"]["earlier"]["trained_parameters"] == 0


def test_a_delta_of_another_base_is_refused_before_anything_is_written(delta, tmp_path, capsys):
    card = read_json(delta / "trained" / "delta.json")
    card["base"] |= {"weights": "0" * 64, "experts": None}
    shutil.copytree(delta, tmp_path / "other")
    (tmp_path / "other" / "trained" / "delta.json").write_text(json.dumps(card))
    assert run(tmp_path / "other", tmp_path / "run") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "harness: the delta of 'the base' does not belong to 'demo': its base's weights have"
    )
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_delta_is_one_line(delta, tmp_path, capsys):
    shutil.copy(delta / "earlier.yaml", tmp_path)
    assert run(tmp_path, tmp_path / "run") == 2
    assert capsys.readouterr().err.startswith(
        f"harness: no folder '{tmp_path / 'trained'}': expected one with"
    )
