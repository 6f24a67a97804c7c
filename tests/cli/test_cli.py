"""What the commands print, and what they do not do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import __version__
from harness.cli.main import main
from harness.runs.run_folder import RunFolder

HEAVY = ("torch", "transformers", "datasets", "lm_eval", "pandas", "sklearn", "statsmodels", "scipy", "numpy")


def printed(capsys, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    ["['--help']", "['run', '--help']", "['baselines', 'list']", "['--version']", "['tasks', '--help']"],
)
def test_help_and_lists_import_nothing_heavy(command):
    code = (
        f"import sys; from harness.cli.main import main; assert main({command}) == 0;"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stderr.strip() == "[]"
    assert result.stdout


def test_importing_the_package_imports_no_torch():
    root = Path(__file__).resolve().parents[2]
    code = "import sys, harness, harness.pipeline.pipeline, harness.cli.main; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_python_m_harness_is_the_command():
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "harness", "tasks", "show", "nothing"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("harness: unknown task 'nothing'")
    assert result.stdout == ""


def test_version(capsys):
    assert printed(capsys, "--version").strip() == __version__


def test_tasks_list_names_prompt_and_capability_tasks(capsys):
    text = printed(capsys, "tasks", "list")
    for name in (
        "demo_harmful",
        "demo_twins",
        "advbench",
        "alpaca",
        "xstest_safe",
        "jbb_benign",
        "demo_facts",
    ):
        assert name in text


@pytest.mark.parametrize("group", ["tasks", "baselines", "judges"])
def test_every_listed_name_can_be_shown(capsys, group):
    rows = json.loads(printed(capsys, group, "list", "--json"))
    assert rows
    for row in rows:
        assert json.loads(printed(capsys, group, "show", row["name"], "--json"))["name"] == row["name"]
        assert printed(capsys, group, "show", row["name"]).startswith(f"name: {row['name']}\n")


def test_baselines_are_those_of_the_documentation(capsys):
    rows = json.loads(printed(capsys, "baselines", "list", "--json"))
    assert {row["name"]: row["intervention"] for row in rows} == {
        "all_experts": "train_experts",
        "base": "none",
        "esft": "train_experts",
        "guide": "train_experts",
        "lora_all": "train_lora",
        "popular_experts": "train_experts",
        "prune": "prune",
        "random_experts": "train_experts",
        "refusal_direction": "steer_residual",
        "safex": "train_experts",
        "steer": "steer",
        "steermoe": "activate",
        "system_prompt": "system_prompt",
        "unsafe_experts": "train_experts",
    }


def test_a_folder_of_ones_own_is_listed_and_stands_in_for_ours(capsys, tmp_path):
    (tmp_path / "steer.yaml").write_text("name: steer\ndescription: My own.\nintervention: none\n")
    rows = json.loads(printed(capsys, "baselines", "list", "--json", "--include", tmp_path))
    assert {row["name"]: row["description"] for row in rows}["steer"] == "My own."


def test_show_model_says_where_its_experts_are(capsys):
    text = printed(capsys, "models", "show", "demo")
    assert "moe_layers: [0, 1, 2, 3]" in text
    assert "experts_per_layer: 32" in text
    assert "recommended settings" in text
    assert {row["name"] for row in json.loads(printed(capsys, "models", "list", "--json"))} == {
        "demo",
        "smol-moe",
    }


def test_dry_run_writes_nothing_and_loads_no_weights(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def refuse(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("harness.engines.in_memory.load_model", refuse)
    text = printed(capsys, "run", "--dry-run", "--limit", "12")
    assert list(tmp_path.iterdir()) == []
    for word in ("demo_harmful", "unsafe_experts", "generated tokens: at most", "memory", "disk"):
        assert word in text


def test_dry_run_counts_prompts_parameters_and_tokens(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = json.loads(
        printed(
            capsys,
            *("run", "--dry-run", "--json", "--limit", "12", "--max-new-tokens", "10"),
            *("--top-k", "8", "--draws", "1"),
        )
    )
    assert found["tasks"] == {
        name: {"identify": 12, "train": 12, "test": 12}
        for name in ("demo_harmful", "demo_benign", "demo_twins")
    }
    trained = {row["name"]: row["trained_parameters"] for row in found["variants"]}
    expert = 3 * 128 * 64
    assert trained == {
        "base": 0,
        "unsafe_experts": 8 * expert,
        "system_prompt": 0,
        "steer": 0,
        "random_experts": 8 * expert,
        "all_experts": 128 * expert,
    }
    # Identify prompts and benign train prompts once, test prompts by each of six variants.
    assert found["generated_tokens_at_most"] == 10 * (3 * 12 + 2 * 12 + 6 * 3 * 12)
    # The process, the weights in float32 and the training state of all experts; activations of the demo are small.
    state = 0.8e9 + 4 * found["model"]["parameters"] + 128 * expert * 20
    assert state < found["memory_bytes"] < 1.3 * state
    assert found["training_examples"] == {"refuse": 12, "retain": 24}


def test_dry_run_names_what_cannot_fit(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.pipeline.estimate.available_bytes", lambda device: 30_000_000)
    rows = json.loads(printed(capsys, "run", "--dry-run", "--json"))["variants"]
    assert {row["name"] for row in rows if row["skipped"]} == {"all_experts"}


def test_json_is_the_summary_and_nothing_else(rerun, capsys):
    capsys.readouterr()
    folder, _ = rerun("--json")
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "summary.json").read_text("utf-8"))


def test_a_run_prints_its_leaderboard_and_where_the_report_is(rerun, capsys):
    capsys.readouterr()
    folder, _ = rerun()
    text = capsys.readouterr().out
    for word in ("unsafe_experts", "random_experts", "demo_harmful", "Did harm fall?", "report.html"):
        assert word in text
    assert str(folder / "report.html") in text.replace("\n", "")


def test_report_writes_the_report_anew(rerun, small_run, capsys, tmp_path):
    folder = tmp_path / "run"
    (folder / "report.html").write_text("as an older version wrote it")
    RunFolder(folder).write_manifest()
    assert "Report: " in printed(capsys, "report", folder)
    assert "unsafe_experts" in (folder / "report.html").read_text()
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert "report.html" in listed
    both = json.loads(printed(capsys, "report", folder, small_run, "--json"))
    assert {len(row["runs"]) for row in both["tables"][0]["rows"]} == {2}


def test_a_step_prints_where_its_result_is(capsys, tmp_path):
    flags = ["--limit", "4", "--max-new-tokens", "2", "--output", tmp_path / "run"]
    assert printed(capsys, "select", *flags) == f"select: done, see {tmp_path / 'run'}\n"
    assert json.loads(printed(capsys, "select", *flags, "--json")) == {"run": str(tmp_path / "run")}


def test_the_default_output_is_named_after_model_intervention_and_seed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = json.loads(printed(capsys, "run", "--dry-run", "--json", "--seed", "7"))
    assert found["output"] == "runs/demo-unsafe_experts-seed7"


def test_stopping_by_hand_is_one_line_and_exit_code_1(monkeypatch, capsys, tmp_path):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.pipeline.pipeline.start", stop)
    assert main(["run", "--output", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == "harness: stopped; run the same command again to continue\n"


def test_a_failed_run_is_one_line_and_exit_code_1_and_keeps_what_was_done(
    rerun, monkeypatch, capsys, tmp_path
):
    from harness.base.errors import HarnessError

    def fail(*args, **kwargs):
        raise HarnessError("the loss of step 1 is nan: lower training.learning_rate")

    monkeypatch.setattr("harness.training.loop.train_bank", fail)
    folder = tmp_path / "run"
    capsys.readouterr()
    code = main(["run", "--output", str(folder), "--limit", "12", "--baselines", "none", "--epochs", "2"])
    assert code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "harness: the loss of step 1 is nan: lower training.learning_rate"
    stages = json.loads((folder / "run.json").read_text())["stages"]
    assert stages["train unsafe_experts"]["state"] == "started"
    assert stages["capture demo_harmful"]["state"] == "done"
