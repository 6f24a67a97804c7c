"""What the exported files hold: what the run folder holds, and what the guide's own functions make of it."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from harness.base.errors import HarnessError
from harness.base.files import read_json, read_jsonl, write_json, write_whole
from harness.cli.main import main
from harness.export.export import Export, export
from harness.guide import calculate_risk_diff
from harness.routing.files import load_counts, load_tokens
from harness.runs.run_folder import RunFolder

QUICK = ("--set", "selection.permutations=1000", "--set", "selection.half_samples=10")


@pytest.fixture(scope="module")
def logit_run(tmp_path_factory, demo) -> Path:
    """A run that kept router logits and stopped after selecting; to be read and not changed."""
    folder = tmp_path_factory.mktemp("logits") / "run"
    assert main(["select", "--limit", "10", "--record", "logits", *QUICK, "--output", str(folder)]) == 0
    return folder


def unpickled(folder: Path, name: str) -> object:
    return pickle.loads((folder / name).read_bytes())  # noqa: S301 (written a moment ago)


def test_the_guides_own_function_finds_the_same_risk_differences_in_the_exported_logits(logit_run, tmp_path):
    export(logit_run, tmp_path, "guide")
    outputs = unpickled(tmp_path, "routing_outputs_demo.pkl")
    table = pd.read_pickle(tmp_path / "risk_diff_demo.pkl")  # noqa: S301 (written a moment ago)
    again = calculate_risk_diff(outputs["safe"], outputs["unsafe"])
    pd.testing.assert_frame_equal(again[list(table)], table)


def test_router_logits_have_the_guides_names_and_shapes(logit_run, tmp_path):
    export(logit_run, tmp_path, "guide", phase="prompt")
    outputs = unpickled(tmp_path, "routing_outputs_demo.pkl")
    counts = load_counts(logit_run / "routing" / "demo_harmful.safetensors")
    tokens = load_tokens(logit_run / "routing" / "demo_harmful.safetensors")
    assert len(outputs["unsafe"]) == len(counts.ids)
    first = outputs["unsafe"][0]
    routing = tokens.of(counts.ids[0])
    assert (first["task"], first["id"], first["record"]) == ("demo_harmful", counts.ids[0], "logits")
    assert first["prompt_tokens"] + first["generated_tokens"] == routing.token_ids.tolist()
    whole = np.concatenate([first["prompt_routings"], first["generation_routings"]], axis=1)
    assert (whole == routing.logits).all()
    assert first["prompt_routings"].shape == (4, routing.prompt_tokens, 32)
    # The chosen experts are those with the highest logits.
    top = np.sort(np.argsort(-first["prompt_routings"], axis=-1)[..., :2], axis=-1)
    assert (top == np.sort(first["prompt_experts"], axis=-1)).all()
    answer = read_jsonl(logit_run / "routing" / "demo_harmful.jsonl")[0]
    assert (first["prompt"], first["generated_text"]) == (answer["prompt"], answer["response"])
    table = pd.read_pickle(tmp_path / "risk_diff_demo.pkl")  # noqa: S301 (written a moment ago)
    prompt = pd.read_parquet(logit_run / "experts.parquet").query("phase == 'prompt'")
    assert table["a_unsafe"].sum() == prompt["a_unsafe"].sum()


def test_with_counts_alone_there_are_counts_and_no_logits(small_run, tmp_path):
    export(small_run, tmp_path, "guide")
    outputs = unpickled(tmp_path, "routing_outputs_demo.pkl")
    for side, tasks in (("safe", {"demo_benign", "demo_twins"}), ("unsafe", {"demo_harmful"})):
        assert {row["task"] for row in outputs[side]} == tasks
        for row in outputs[side]:
            assert row["record"] == "counts"
            assert not {"prompt_routings", "prompt_experts", "prompt_tokens"} & set(row)
            assert row["prompt_counts"].sum() == 4 * row["n_prompt_tokens"] * row["experts_per_token"]
    table = pd.read_pickle(tmp_path / "risk_diff_demo.pkl")  # noqa: S301 (written a moment ago)
    used = sum(row["prompt_counts"] + row["generation_counts"] for row in outputs["unsafe"])
    assert (table["a_unsafe"] == used[table["layer"], table["expert"]]).all()


def test_parquet_holds_the_same_as_the_run(logit_run, tmp_path):
    written = export(logit_run, tmp_path, "parquet")
    assert [path.suffix for path in written.files] == [".parquet", ".jsonl", ".parquet"]
    table = pd.read_parquet(tmp_path / "routing_outputs_demo.parquet")
    tokens = load_tokens(logit_run / "routing" / "demo_benign.safetensors")
    rows = table[table["task"] == "demo_benign"]
    assert (rows["kind"] == "benign").all()
    assert (np.stack(rows["experts"]) == tokens.experts.reshape(-1, 2)).all()
    assert (np.stack(rows["gate_weights"]) == tokens.weights.reshape(-1, 2)).all()
    assert (np.stack(rows["logits"]) == tokens.logits.reshape(-1, 32)).all()
    assert (rows["layer"].to_numpy().reshape(-1, 4) == [0, 1, 2, 3]).all()
    assert (rows["token_id"].to_numpy()[::4] == tokens.token_ids).all()
    one = rows[rows["id"] == tokens.ids[3]]
    assert (one["token_id"].to_numpy()[::4] == tokens.of(tokens.ids[3]).token_ids).all()
    assert ((one["phase"] == "prompt") == (one["place"] < 0)).all()
    answers = read_jsonl(tmp_path / "answers_demo.jsonl")
    assert {row["kind"] for row in answers} == {"harmful", "benign"}
    assert len(answers) == table.drop_duplicates(["task", "id"]).shape[0]


def test_parquet_of_counts_alone(small_run, tmp_path):
    export(small_run, tmp_path, "parquet")
    table = pd.read_parquet(tmp_path / "routing_outputs_demo.parquet")
    counts = load_counts(small_run / "routing" / "demo_harmful.safetensors")
    rows = table[table["task"] == "demo_harmful"]
    assert (np.stack(rows["counts"]).reshape(counts.counts.shape) == counts.counts).all()
    assert (np.stack(rows["counts"]).sum(axis=1) == 2 * rows["tokens"]).all()
    assert rows["phase"].unique().tolist() == ["prompt", "generation", "decision"]
    conversations = read_jsonl(tmp_path / "sft_dataset_demo.jsonl")
    assert [message["role"] for message in conversations[0]["messages"]] == ["user", "assistant"]


def test_a_hub_name_becomes_a_file_name():
    what = Export(SimpleNamespace(model=SimpleNamespace(name="Qwen/Qwen3-30B-A3B")))
    assert what.model == "Qwen--Qwen3-30B-A3B"


def test_answers_that_are_missing_are_an_error_and_no_file(logit_run, tmp_path, capsys):
    run = shutil.copytree(logit_run, tmp_path / "run")
    rows = read_jsonl(run / "routing" / "demo_harmful.jsonl")
    (run / "routing" / "demo_harmful.jsonl").write_text(json.dumps(rows[0]) + "\n")
    RunFolder(run).write_manifest()
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "guide"]) == 2
    assert f"has no answer to prompt '{rows[1]['id']}'" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


def test_an_export_that_fails_leaves_none_of_its_files_and_may_be_repeated(small_run, tmp_path, monkeypatch):
    from harness.export import export as module

    written = []

    def full(path, write):
        written.append(path)
        if len(written) == 2:
            raise HarnessError(f"{path}: the disk is full")
        write_whole(path, write)

    (tmp_path / "beside").touch()
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_whole", full)
        with pytest.raises(HarnessError, match="the disk is full"):
            export(small_run, tmp_path, "parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["beside"]
    assert all(path.is_file() for path in export(small_run, tmp_path, "parquet").files)


def test_a_models_name_cannot_lead_out_of_the_folder(logit_run, tmp_path):
    run = shutil.copytree(logit_run, tmp_path / "run")
    state = read_json(run / "run.json")
    state["model"]["name"] = "../../etc/x"
    write_json(run / "run.json", state)
    RunFolder(run).write_manifest()
    written = export(run, tmp_path / "out", "parquet")
    assert written.files[0] == tmp_path / "out" / "routing_outputs_..--..--etc--x.parquet"
