"""`harness analyze` and `harness export` on real runs of the demo model, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("matplotlib")

from harness.base.files import read_json, sha256, write_json
from harness.cli.main import main
from harness.routing.files import load_counts, load_tokens, save_routing
from harness.runs.run_folder import RunFolder

DRAWN = ["agreement", "load_balance"]
CHARTS = ["experts.svg", "layers.svg", "layers.csv"]
ALWAYS = ["agreement", "experts", "layers", "load_balance"]


@pytest.fixture(scope="module")
def token_run(tmp_path_factory, demo) -> Path:
    """A run that kept single tokens and stopped after selecting; to be read and not changed."""
    folder = tmp_path_factory.mktemp("tokens") / "run"
    quick = ["--set", "selection.permutations=1000", "--set", "selection.half_samples=10"]
    command = ["select", "--limit", "12", "--record", "tokens", *quick, "--output", str(folder)]
    assert main(command) == 0
    return folder


@pytest.fixture
def own_run(token_run, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(token_run, tmp_path / "run")


@pytest.fixture
def refused(capsys):
    """Run a command that must end with exit code 2 and one line; returns the line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("harness: ")
        assert said.err.count("\n") == 1
        return said.err

    return run


NOT_ON_TEST_PROMPTS = "base's routing on test prompts of both kinds was not captured"


def first_id(run: Path, task: str = "demo_harmful") -> str:
    return load_counts(run / "routing" / f"{task}.safetensors").ids[0]


def test_figures_and_manifest_of_a_run_with_tokens(own_run, capsys):
    name = first_id(own_run)
    assert main(["analyze", str(own_run), "--sample", f"demo_harmful/{name}", "--json"]) == 0
    said = capsys.readouterr()
    # The run only selected: base has answered no test prompts.
    assert said.err.splitlines() == [f"detector is left out: {NOT_ON_TEST_PROMPTS}"]
    result = json.loads(said.out)
    figures = [Path(path).relative_to(own_run / "figures") for path in result["figures"]]
    drawn = [f"{figure}.{kind}" for figure in (*DRAWN, "coactivation") for kind in ("svg", "png")]
    sample = f"tokens/demo_harmful/{name}.html"
    assert sorted(map(str, figures)) == sorted([*CHARTS, *drawn, sample, "coactivation.parquet"])
    files = read_json(own_run / "manifest.json")["files"]
    for path in figures:
        assert files[f"figures/{path}"]["sha256"] == sha256(own_run / "figures" / path)
    assert result["phase"] == "decision"
    assert result["skipped"] == {"detector": NOT_ON_TEST_PROMPTS}
    assert result["agreement"]["experts"] == 128
    assert 0 <= result["agreement"]["overlap"] <= result["agreement"]["k"] == 12
    balance = result["load_balance"]
    assert balance["layers"] == [0, 1, 2, 3]
    for kind in ("harmful", "benign"):
        assert all(0 < value <= 1 for values in balance[kind].values() for value in values)
    pairs = pd.read_parquet(own_run / "figures" / "coactivation.parquet")
    assert pairs["difference"].abs().is_monotonic_decreasing
    assert ((pairs["other_layer"] - pairs["layer"]).isin([0, 1])).all()


@pytest.mark.slow
def test_equal_runs_give_equal_files(token_run, tmp_path, capsys):
    for folder in ("a", "b"):
        assert main(["analyze", str(token_run), "--output", str(tmp_path / folder)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(tmp_path / "a" / "experts.svg")
    assert printed[-1].startswith("prompt and answer scores: Spearman ")
    assert not (token_run / "figures").exists()
    files = sorted((tmp_path / "a").iterdir())
    assert len(files) == 10
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_without_tokens_coactivation_is_left_out_in_one_line(small_run, tmp_path, capsys):
    for stale in ("coactivation.svg", "coactivation.png", "coactivation.parquet"):
        (tmp_path / stale).write_text("of a run with tokens")
    assert main(["analyze", str(small_run), "--output", str(tmp_path), "--phase", "all", "--json"]) == 0
    said = capsys.readouterr()
    reason = "it needs single tokens: capture again with --record tokens"
    assert said.err == f"coactivation is left out: {reason}\n"
    result = json.loads(said.out)
    assert result["skipped"] == {"coactivation": reason}
    assert result["phase"] == "all"
    assert sorted({path.stem for path in tmp_path.iterdir()}) == ALWAYS


def test_a_sample_without_tokens_is_refused_before_anything_is_written(small_run, tmp_path, refused):
    sample = f"demo_harmful/{first_id(small_run)}"
    line = refused("analyze", small_run, "--sample", sample, "--output", tmp_path / "figures")
    assert "holds counts only: capture again with --record tokens" in line
    assert not (tmp_path / "figures").exists()


def test_samples_that_were_not_captured_are_refused_with_the_nearest(token_run, tmp_path, refused):
    name = first_id(token_run)
    more = ["--output", tmp_path / "figures"]
    line = refused("analyze", token_run, "--sample", f"demo_harmful/{name}x", *more)
    assert f"no such prompt was captured of demo_harmful: did you mean '{name}'?" in line
    line = refused("analyze", token_run, "--sample", "demo_harmful/zzz", *more)
    assert "such as demo-harmful-" in line
    line = refused("analyze", token_run, "--sample", f"demo_harmfull/{name}", *more)
    assert "did you mean 'demo_harmful'?" in line
    line = refused("analyze", token_run, "--sample", name, *more)
    assert "expected TASK/ID with a captured task" in line
    assert not (tmp_path / "figures").exists()


def test_an_id_that_looks_like_a_path_stays_inside_the_folder(own_run, tmp_path):
    path = own_run / "routing" / "demo_harmful.safetensors"
    counts, tokens = load_counts(path), load_tokens(path)
    ids = ("../../../\u202e<script>", *counts.ids[1:])
    save_routing(dataclasses.replace(counts, ids=ids), path, dataclasses.replace(tokens, ids=ids))
    RunFolder(own_run).write_manifest()
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert main(["analyze", str(own_run), "--sample", f"demo_harmful/{ids[0]}"]) == 0
    written = {file for file in tmp_path.rglob("*") if file.is_file()} - before
    assert written
    assert all(file.is_relative_to(own_run / "figures") for file in written)
    (page,) = (own_run / "figures" / "tokens" / "demo_harmful").glob("*.html")
    text = page.read_text(encoding="utf-8")
    assert "⟨U+202E⟩" in text
    assert "<script>" not in text
    assert "\u202e" not in text


def test_without_the_model_token_ids_are_coloured(own_run):
    state = read_json(own_run / "run.json")
    state["model"]["path"] = str(own_run / "gone")
    write_json(own_run / "run.json", state)
    RunFolder(own_run).write_manifest()
    name = first_id(own_run)
    assert main(["analyze", str(own_run), "--sample", f"demo_harmful/{name}"]) == 0
    text = (own_run / "figures" / "tokens" / "demo_harmful" / f"{name}.html").read_text(encoding="utf-8")
    assert "token ids are shown" in text
    assert (
        f">{load_tokens(own_run / 'routing' / 'demo_harmful.safetensors').of(name).token_ids[1]}</span>"
        in text
    )


def test_a_run_without_a_selection_has_figures_and_no_sample(own_run, refused):
    shutil.rmtree(own_run / "variants")
    RunFolder(own_run).write_manifest()
    line = refused("analyze", own_run, "--sample", f"demo_harmful/{first_id(own_run)}")
    assert "acts on no selected experts" in line
    assert main(["analyze", str(own_run)]) == 0


@pytest.mark.parametrize("command", [["analyze"], ["export"]])
def test_folders_that_are_no_run_or_not_ready_are_refused(own_run, tmp_path, refused, command):
    target = [tmp_path / "target"] if command == ["export"] else []
    line = refused(*command, tmp_path / "nothing", *target)
    assert "nothing is not the folder of a run: it has no run.json" in line
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("[]")
    assert "not the run.json of a run" in refused(*command, tmp_path / "other", *target)
    (tmp_path / "other" / "run.json").write_text('{"stages": {}}')
    lacking = "has no experts.parquet" if command == ["analyze"] else "holds no routing"
    assert lacking in refused(*command, tmp_path / "other", *target)
    line = refused(*command, own_run, *target, "--phase", "promt")
    assert "unknown phase 'promt': did you mean 'prompt'?" in line
    table = (own_run / "experts.parquet").read_bytes()
    (own_run / "experts.parquet").write_bytes(table[:100])
    RunFolder(own_run).write_manifest()
    assert "experts.parquet: not a Parquet file" in refused(*command, own_run, *target)
    (own_run / "experts.parquet").unlink()
    RunFolder(own_run).write_manifest()
    line = refused(*command, own_run, *target)
    assert f"has no experts.parquet: select experts first, with `harness select --output {own_run}`" in line
    (own_run / "experts.parquet").write_bytes(table)
    shutil.rmtree(own_run / "routing")
    RunFolder(own_run).write_manifest()
    assert "routing" in refused(*command, own_run, *target)
    assert not (tmp_path / "target").exists()
    assert not (own_run / "figures").exists()


def test_without_matplotlib_one_line_says_what_to_install(token_run, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    line = refused("analyze", token_run)
    assert "figures need matplotlib, which is not installed: pip install 'moe-safety-harness[plots]'" in line


def test_the_guides_files_of_a_whole_run(small_run, tmp_path, capsys):
    assert main(["export", str(small_run), "--format", "guide", str(tmp_path / "out")]) == 0
    names = ["routing_outputs_demo.pkl", "risk_diff_demo.pkl", "sft_dataset_demo.pkl"]
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(tmp_path / "out" / name) for name in names]
    assert said.err == ""
    head = pd.read_pickle(tmp_path / "out" / names[1]).head(20)  # noqa: S301 (written a moment ago)
    assert list(head) == ["layer", "expert", "a_safe", "a_unsafe", "a_safe_n", "a_unsafe_n", "risk_diff"]
    assert head["risk_diff"].is_monotonic_decreasing
    table = pd.read_parquet(small_run / "experts.parquet")
    assert head["risk_diff"][0] == table.loc[table["phase"] == "all", "risk_diff"].max()
    rows = pickle.loads((tmp_path / "out" / names[2]).read_bytes())  # noqa: S301 (written a moment ago)
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"]
    assert {row["aim"] for row in rows} == {"refuse", "retain"}
    assert len(rows) == len((small_run / "training" / "examples.jsonl").read_text().splitlines())


def test_export_overwrites_nothing_unasked(token_run, tmp_path, capsys, refused):
    target = tmp_path / "out"
    assert main(["export", str(token_run), str(target), "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert [Path(path).name for path in result["files"]] == [
        "routing_outputs_demo.parquet",
        "answers_demo.jsonl",
        "risk_diff_demo.parquet",
    ]
    assert result["left_out"] == {
        "sft_dataset": "the run has no training/examples.jsonl: nothing was trained"
    }
    assert said.err.startswith("sft_dataset is left out: ")
    mine = target / "mine.txt"
    mine.write_text("mine")
    (target / "answers_demo.jsonl").write_text("old")
    line = refused("export", token_run, target)
    assert "exists: name another folder, or add --force to overwrite it" in line
    assert (target / "answers_demo.jsonl").read_text() == "old"
    assert main(["export", str(token_run), str(target), "--force"]) == 0
    assert (target / "answers_demo.jsonl").read_text() != "old"
    assert mine.read_text() == "mine"


def test_export_refuses_what_it_cannot_do(token_run, tmp_path, refused):
    assert "did you mean 'guide'?" in refused("export", token_run, tmp_path / "out", "--format", "guid")
    inside = token_run / "out"
    assert "is inside the run folder" in refused("export", token_run, inside)
    (tmp_path / "file").write_text("")
    assert "is a file: expected a folder" in refused("export", token_run, tmp_path / "file")
    assert not inside.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["analyze"], ["export"]])
def test_what_was_changed_since_the_run_is_neither_drawn_nor_exported_nor_taken_into_the_manifest(
    own_run, tmp_path, refused, command
):
    path, manifest = own_run / "routing" / "demo_harmful.jsonl", own_run / "manifest.json"
    before = manifest.read_bytes()
    path.write_text(path.read_text(encoding="utf-8").replace("e", "a", 1), encoding="utf-8")
    target = [tmp_path / "target"] if command == ["export"] else []
    assert "routing/demo_harmful.jsonl was changed" in refused(*command, own_run, *target)
    assert manifest.read_bytes() == before
    assert not (tmp_path / "target").exists()
