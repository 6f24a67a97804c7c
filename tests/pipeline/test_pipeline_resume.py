"""Running again: what is finished is skipped, what depends on a change is done anew, nothing else."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.models.load import DEMO_FOLDER
from harness.routing.files import load_counts
from harness.runs.run_folder import RunFolder

TASKS = ["demo_harmful", "demo_benign", "demo_twins"]
TRAINED = ["unsafe_experts", "random_experts", "all_experts"]


def evaluation(*names: str) -> set[str]:
    answers = {f"answer {name}/{task}" for name in names for task in TASKS}
    return answers | {f"{what} {name}" for what in ("capability", "drift") for name in names}


def training(*names: str) -> set[str]:
    return {f"{what} {name}" for what in ("train", "prove") for name in names} | evaluation(*names)


def test_a_second_run_does_nothing_and_does_not_load_the_model(rerun, small_run, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("harness.pipeline.session.load_model", refuse)
    folder, stages = rerun()
    assert stages == []
    assert (folder / "summary.json").read_bytes() == (small_run / "summary.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--set", "training.learning_rate=1e-3"], training("unsafe_experts")),
        (["--top-k", "4"], {"expert table"} | training("unsafe_experts")),
        (["--capability-limit", "4"], {"capability base", "capability unsafe_experts"}),
        (["--capability", "demo_arithmetic"], {"capability base", "capability unsafe_experts"}),
        (["--judge", "builtin"], set()),
    ],
    ids=["learning rate", "top_k", "capability limit", "capability tasks", "nothing"],
)
def test_a_changed_setting_reruns_what_depends_on_it(rerun, change, expected):
    assert set(rerun("--baselines", "none", *change)[1]) == expected


def test_selection_decides_random_experts_and_steering_too(rerun):
    _, stages = rerun("--top-k", "4", "--baselines", "steer,random_experts")
    # `stability` is a share of half-samples in the top k, so the table is made anew too.
    assert set(stages) == {"expert table"} | training("unsafe_experts", "random_experts") | evaluation(
        "steer"
    )


def test_a_further_draw_leaves_the_first_alone(rerun):
    folder, stages = rerun("--draws", "2", "--baselines", "random_experts")
    assert set(stages) == training("random_experts_2")
    drawn = [
        read_json(folder / f"variants/{name}/selection.json")["experts"]
        for name in ("random_experts", "random_experts_2")
    ]
    assert drawn[0] != drawn[1]


def test_a_setting_that_changes_every_answer_reruns_every_answer(rerun):
    stages = set(rerun("--max-new-tokens", "5", "--baselines", "none")[1])
    assert {f"capture {task}" for task in TASKS} <= stages
    assert {"own answers demo_benign", "expert table"} <= stages
    assert evaluation("base", "unsafe_experts") <= stages


def test_other_prompts_rerun_every_stage_that_reads_them(rerun):
    """As a limit or another seed gives: no stage may go on with the answers to the prompts of before."""
    folder, stages = rerun("--limit", "6", "--baselines", "none")
    assert {f"capture {task}" for task in TASKS} <= set(stages)
    assert {"own answers demo_benign", "own answers demo_twins", "expert table"} <= set(stages)
    assert {f"answer base/{task}" for task in TASKS} <= set(stages)
    ids = read_json(folder / "splits.json")["tasks"]
    for task in TASKS:
        assert load_counts(folder / f"routing/{task}.safetensors").ids == tuple(ids[task]["ids"]["identify"])
        rows = read_jsonl(folder / f"variants/base/responses/{task}.jsonl")
        assert [row["id"] for row in rows] == ids[task]["ids"]["test"]


def test_changing_back_gives_the_first_results(rerun, findings):
    folder, _ = rerun("--baselines", "none")
    before = findings(folder)
    rerun("--baselines", "none", "--top-k", "4")
    assert findings(folder) != before
    rerun("--baselines", "none")
    assert (findings(folder)) == before


def test_lost_files_are_made_again_and_are_the_same(rerun, small_run, tmp_path, findings):
    lost = {
        "variants/base/responses/demo_twins.jsonl": "answer base/demo_twins",
        "variants/steer/capability.json": "capability steer",
        "variants/unsafe_experts/delta.json": "train unsafe_experts",
        "variants/all_experts/proof.json": "prove all_experts",
        "routing/demo_benign.safetensors": "capture demo_benign",
        "training/demo_benign.jsonl": "own answers demo_benign",
        "experts.parquet": "expert table",
    }
    for name in lost:
        (tmp_path / "run" / name).unlink()
    folder, stages = rerun()
    assert sorted(stages) == sorted(lost.values())
    assert findings(folder) == findings(small_run)


def test_a_reused_folder_follows_another_model(tmp_path):
    """No answer of the old weights meets the new ones."""
    model, folder = tmp_path / "model", tmp_path / "run"
    shutil.copytree(DEMO_FOLDER, model)
    command = ["run", "--model", str(model), "--output", str(folder), "--limit", "4", "--max-new-tokens", "4"]
    command += ["--tasks", "demo_harmful,demo_benign", "--baselines", "none", "--set", "training.max_steps=1"]
    assert main(command) == 0
    before = RunFolder(folder).state["stages"]
    answers = read_jsonl(folder / "variants/base/responses/demo_benign.jsonl")
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"] = torch.roll(weights["model.embed_tokens.weight"], 1, 0)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert main(command) == 0
    after = RunFolder(folder).state["stages"]
    assert before.keys() == after.keys()
    assert not [name for name in before if before[name]["fingerprint"] == after[name]["fingerprint"]]
    assert read_jsonl(folder / "variants/base/responses/demo_benign.jsonl") != answers


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    """Two runs with one seed and one with another, in folders of their own."""
    folders = []
    for name, seed in (("first", "3"), ("again", "3"), ("other", "4")):
        folders.append(tmp_path_factory.mktemp(name) / "run")
        command = ["run", "--limit", "12", "--set", "training.max_steps=4", "--capability-limit", "4"]
        command += ["--baselines", "random_experts", "--seed", seed, "--output", str(folders[-1])]
        assert main(command) == 0
    return folders


def test_the_same_seed_gives_the_same_results_to_the_byte(repeated, findings):
    first, again, _ = repeated
    assert findings(first) == findings(again)


def test_another_seed_gives_other_splits_and_draws(repeated):
    first, _, other = repeated
    ids = [read_json(folder / "splits.json")["tasks"]["demo_benign"]["ids"] for folder in (first, other)]
    assert ids[0]["test"] != ids[1]["test"]
    drawn = [read_json(folder / "variants/random_experts/selection.json") for folder in (first, other)]
    assert drawn[0]["experts"] != drawn[1]["experts"]
    seeds = [read_json(folder / "summary.json")["seeds"] for folder in (first, other)]
    assert seeds[0]["splits"] == 3
    assert seeds[0]["random_experts"] != seeds[1]["random_experts"]


def test_the_steps_one_by_one_make_the_same_run(repeated, tmp_path, findings):
    folder = str(tmp_path / "run")
    command = ["--limit", "12", "--set", "training.max_steps=4", "--capability-limit", "4", "--seed", "3"]
    assert main(["capture", *command, "--baselines", "random_experts", "--output", folder]) == 0
    assert not (tmp_path / "run/experts.parquet").exists()
    for step, made, missing in (
        ("select", "variants/unsafe_experts/selection.json", "variants/unsafe_experts/delta.json"),
        ("train", "variants/unsafe_experts/delta.safetensors", "summary.json"),
        ("evaluate", "report.html", "none"),
    ):
        assert main([step, "--output", folder]) == 0  # the settings stand in the folder
        assert (tmp_path / "run" / made).is_file()
        assert not (tmp_path / "run" / missing).exists()
    assert findings(tmp_path / "run") == findings(repeated[0])


def test_a_variant_that_cannot_fit_is_skipped_with_its_reason(rerun, monkeypatch, capsys):
    needed = 3_600_000 * 4 + 128 * 24_576 * 18
    monkeypatch.setattr("harness.pipeline.pipeline.available_bytes", lambda device: needed)
    folder, _ = rerun()
    summary = read_json(folder / "summary.json")
    variants = summary["variants"]
    assert variants["all_experts"]["skipped"].startswith("training 0.00 billion parameters takes about")
    assert "all_experts" not in {row["variant"] for row in summary["measurements"]}
    assert variants["unsafe_experts"]["skipped"] is None
    assert "skipping all_experts" in capsys.readouterr().err
    assert "all_experts" in json.dumps((folder / "report.md").read_text("utf-8"))


def test_a_selection_too_wide_to_steer_by_is_skipped_with_its_reason(rerun):
    folder, stages = rerun("--top-k", "128", "--baselines", "steer", "--set", "training.max_steps=1")
    variants = read_json(folder / "summary.json")["variants"]
    assert "would keep 0 experts, fewer than the 2 a token needs" in variants["steer"]["skipped"]
    assert "answer steer/demo_harmful" not in stages
