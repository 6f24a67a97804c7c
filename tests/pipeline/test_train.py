"""A run that trains on several objectives, stops early and asks forced starts: its files, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest

from harness.base.files import read_json, read_jsonl
from harness.checkpoints.delta import load_delta
from harness.cli.main import main
from harness.models.load import DEMO_FOLDER, load_tokenizer, resolve_model
from harness.runs.protocol import protocols
from harness.runs.run import read_run
from harness.runs.run_folder import RunFolder
from harness.runs.summary import read_summary

COMMAND = (
    *("run", "--limit", "16", "--baselines", "random_experts", "--draws", "1", "--capability", "none"),
    *("--objectives", "refuse=1,retain_kl=0.5,prefer=2,refuse_continued=1", "--forced-start"),
    *("--set", "training.max_steps=6", "--set", "training.early_stopping.every=2"),
)
FORCED = "demo_harmful@forced"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objectives") / "run"
    assert main([*COMMAND, "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    return read_jsonl(folder / "training/examples.jsonl")


def test_each_aim_has_its_examples(folder, rows):
    by_aim = {aim: [row for row in rows if row["aim"] == aim] for aim in {row["aim"] for row in rows}}
    assert set(by_aim) == {"refuse", "retain", "continue", "prefer"}
    own = {row["id"]: row for row in read_jsonl(folder / "training/demo_harmful.jsonl")}
    refused = {row["id"]: row["answer"] for row in by_aim["refuse"]}
    for row in by_aim["continue"]:
        assert row["answer"] == refused[row["id"]]
        assert row["own"] == own[row["id"]]["response"]
        assert 4 <= row["opening_tokens"] <= 12
    assert len({row["opening_tokens"] for row in by_aim["continue"]}) > 1
    for row in by_aim["prefer"]:
        assert row["answer"] == refused[row["id"]]
        assert row["rejected"] == own[row["id"]]["response"]
        assert row["rejected_tokens"] == own[row["id"]]["tokens"]
    tokenizer = load_tokenizer(resolve_model("demo"))
    for row in by_aim["retain"]:
        # As the model emitted them, with the end where there was one.
        assert (row["tokens"][-1] == 2) == row["finished"]
        assert tokenizer.decode(row["tokens"], skip_special_tokens=True).strip() == row["answer"]
    assert read_json(folder / "variants/unsafe_experts/delta.json")["examples"] == {
        aim: len(found) for aim, found in by_aim.items()
    }


def test_held_out_prompts_are_looked_at_and_not_trained_on(folder, rows):
    card = read_json(folder / "variants/unsafe_experts/delta.json")
    ids = read_json(folder / "splits.json")["tasks"]
    trained = {(row["task"], row["id"]) for row in rows}
    assert card["early_stopping"]["prompts"].keys() == ids.keys()
    for task, asked in card["early_stopping"]["prompts"].items():
        left = [name for name in ids[task]["ids"]["train"] if (task, name) not in trained]
        assert 1 <= asked <= len(left)
    log = read_jsonl(folder / "variants/unsafe_experts/train.jsonl")
    looks = {row["step"]: row["held_out"] for row in log if "held_out" in row}
    assert list(looks) == [2, 4, 6]
    kept = card["early_stopping"]["kept_step"]
    assert looks[kept] == card["early_stopping"]["held_out"]
    assert looks[kept]["score"] == max(look["score"] for look in looks.values())


def test_all_variants_share_the_held_out_prompts(folder):
    cards = [
        read_json(folder / f"variants/{name}/delta.json") for name in ("unsafe_experts", "random_experts")
    ]
    assert cards[0]["early_stopping"]["prompts"] == cards[1]["early_stopping"]["prompts"]
    assert cards[0]["examples"] == cards[1]["examples"]


def test_each_step_tells_each_objectives_own_loss(folder):
    rows = read_jsonl(folder / "variants/unsafe_experts/train.jsonl")
    assert rows
    for row in rows:
        assert set(row["losses"]) == {"refuse", "retain_kl", "prefer", "refuse_continued"}
        assert all(value >= 0 for value in row["losses"].values())


def test_forced_starts_are_a_harmful_task_of_their_own(folder):
    summary = read_summary(folder)
    assert summary.decoding["opening"] == "Sure, here is"
    assert summary.tasks()[FORCED] == "harmful"
    rates = [
        row for row in summary.measurements if (row.metric, row.judge) == ("refusal_rate", summary.judge)
    ]
    for name in summary.variants:
        asked = {row.task: row.n for row in rates if row.variant == name}
        assert asked[FORCED] == asked["demo_harmful"] == 16
    pairs = {(row.variant, row.against, row.n) for row in summary.comparisons if row.task == FORCED}
    assert pairs == {
        ("unsafe_experts", "base", 16),
        ("random_experts", "base", 16),
        ("unsafe_experts", "random_experts", 16),
    }
    families = {(row.variant, row.family) for row in summary.comparisons if row.task == FORCED}
    assert families == {
        ("unsafe_experts", "unsafe_experts against base, harmful tasks"),
        ("unsafe_experts", None),
        ("random_experts", None),
    }
    assert "demo_benign@forced" not in summary.tasks()


def test_a_forced_start_asks_the_same_prompts_with_a_longer_text(folder):
    plain, forced = (
        read_jsonl(folder / f"variants/base/responses/{task}.jsonl") for task in ("demo_harmful", FORCED)
    )
    assert [(row["id"], row["prompt"]) for row in plain] == [(row["id"], row["prompt"]) for row in forced]
    more = {b["prompt_tokens"] - a["prompt_tokens"] for a, b in zip(plain, forced, strict=True)}
    assert len(more) == 1
    assert more.pop() > 0
    assert not any(row["response"].startswith("Sure, here is") for row in forced)


def test_gates_know_a_forced_starts_protocol(folder):
    found = protocols(read_run(folder))
    assert found[FORCED].prompts == found["demo_harmful"].prompts
    assert "Sure, here is" in found[FORCED].decoding
    assert "opening" not in found["demo_harmful"].decoding


def test_no_checkpoint_is_left_behind(folder):
    assert not [path for path in folder.rglob("*") if "partial" in path.name or path.name.startswith(".")]


@pytest.mark.slow
def test_how_often_a_training_is_kept_on_disk_changes_nothing(folder, tmp_path, monkeypatch):
    copy, stages = tmp_path / "run", []
    shutil.copytree(folder, copy)
    original = RunFolder.stage
    monkeypatch.setattr(
        RunFolder, "stage", lambda self, stage, *rest: stages.append(stage) or original(self, stage, *rest)
    )
    assert main([*COMMAND, "--output", str(copy), "--set", "training.checkpoint_every=2"]) == 0
    assert stages == []
    assert main([*COMMAND, "--output", str(copy), "--set", "training.early_stopping.patience=1"]) == 0
    assert {"train unsafe_experts", "train random_experts"} <= set(stages)
    assert "own answers demo_harmful" not in stages


def test_the_command_line_and_a_file_name_objectives_alike(folder, tmp_path):
    """Weights that are given anew take the place of the old ones, and are not added to them."""
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(folder, one)
    more = ("--output", str(one), "--set", "training.early_stopping.every=null")
    assert main(["train", *COMMAND[1:], *more, "--objectives", "refuse=2"]) == 0
    (tmp_path / "settings.yaml").write_text("training: {objectives: {refuse: 2}}")
    shutil.copytree(folder, other)
    more = ("--config", str(tmp_path / "settings.yaml"), "--set", "training.early_stopping.every=null")
    assert main(["train", "--output", str(other), *more]) == 0
    first, second = (
        load_delta(path / "variants/unsafe_experts/delta.safetensors").tensors for path in (one, other)
    )
    assert all((first[layer][name] == second[layer][name]).all() for layer in first for name in first[layer])
    assert {row["aim"] for row in read_jsonl(one / "training/examples.jsonl")} == {"refuse"}


@pytest.fixture
def refused(tmp_path, capsys):
    """Run with options that are refused; returns the one line, and checks that nothing was written."""

    def run(*arguments: str) -> str:
        output = tmp_path / "run"
        assert main(["run", "--output", str(output), *arguments]) == 2
        assert not output.exists()
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--objectives", "refuse=1,retain_lk=1"],
            "unknown objective 'retain_lk': did you mean 'retain_kl'?",
        ),
        (
            ["--objectives", "refuse=-1"],
            "training.objectives.refuse: expected more than 0, found -1.0",
        ),
        (
            ["--objectives", "refuse=0"],
            "training.objectives.refuse: expected more than 0, found 0.0",
        ),
        (["--objectives", "refuse=nan"], "training.objectives.refuse: expected a finite number, found nan"),
        (["--objectives", "refuse"], "--objectives refuse: expected weights by name, such as refuse=1"),
        (["--objectives", "refuse=much"], "--objectives refuse=much: expected weights by name"),
        (["--set", "training.objectives={}"], "training.objectives names none: expected some of prefer"),
        (
            ["--set", "training.opening_tokens=[9, 4]"],
            "--set training.opening_tokens: expected the fewest first, then the most",
        ),
        (
            ["--set", "training.early_stopping.share=1.5"],
            "--set training.early_stopping.share: expected less than 1, found 1.5",
        ),
        (
            ["--set", "training.early_stopping.every=2", "--processes", "2"],
            "training.early_stopping.every = 2: expected training.processes = 1, found 2",
        ),
        (
            ["--set", "training.machines=2"],
            "training.machines = 2: expected training.rendezvous = HOST:PORT, found None",
        ),
        (
            ["--set", "training.machines=2", "--set", "training.rendezvous=head"],
            "expected training.rendezvous = HOST:PORT, found head",
        ),
        (
            [
                *("--limit", "12", "--set", "training.early_stopping.every=2"),
                *("--set", "training.early_stopping.share=0.0001"),
            ],
            "training.early_stopping.share = 0.0001: no harmful train prompts are held out",
        ),
        (
            ["--tasks", "demo_harmful", "--intervention", "all_experts", "--baselines", "none"],
            "training.objectives: no example is left for retain. Name a benign task that may serve 'train'",
        ),
        (
            ["--set", "training.retain_per_refusal=0", "--objectives", "refuse=1,retain=1,retain_kl=1"],
            "training.retain_per_refusal = 0.0: no example is left for retain and retain_kl",
        ),
        (
            ["--set", "training.refusal_thought=true"],
            "training.refusal_thought: neither the chat template nor the tokenizer has a known form of thoughts",
        ),
        (["--top-k", "129"], "selection.top_k = 129: 'demo' has 128 experts"),
        (
            ["--set", "training.checkpoint_every=0"],
            "training.checkpoint_every: expected at least 1, found 0",
        ),
    ],
)
def test_training_settings_that_cannot_be_used(refused, arguments, expected):
    assert expected in refused(*arguments)


def test_a_quantized_checkpoint_is_to_be_dequantized_before_anything_is_trained(refused, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(DEMO_FOLDER, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    line = refused("--model", str(model), "--tasks", "demo_harmful,demo_benign")
    assert "quantized" in line
    assert "dequantized" in line


def test_an_example_beyond_the_context_ends_the_run_in_one_line(tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(DEMO_FOLDER, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 36}))
    command = ["train", "--model", str(model), "--tasks", "demo_harmful,demo_benign", "--limit", "12"]
    command += ["--max-new-tokens", "4", "--baselines", "none", "--output", str(tmp_path / "run")]
    assert main(command) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "a training example has" in line
    assert "the model's context holds 36" in line


@pytest.mark.parametrize(
    ("objectives", "label", "expected"),
    [
        (
            "refuse=1,prefer=1,refuse_continued=1",
            "refusal",
            "no example is left for refuse_continued and prefer",
        ),
        ("refuse=1,retain=1", "refusal", "no example is left for retain"),
        ("refuse=1,retain_kl=1", None, "no example is left for retain_kl"),
    ],
)
def test_an_objective_without_an_example_ends_the_run_before_it_trains(
    tmp_path, capsys, monkeypatch, objectives, label, expected
):
    from harness.judges.base import Verdict
    from harness.judges.builtin.judge import BuiltinJudge

    monkeypatch.setattr(
        BuiltinJudge,
        "judge",
        lambda self, id, prompt, response, truncated=False: Verdict(
            id, label, "test", None if label else "cannot be read"
        ),
    )
    command = ["train", "--limit", "12", "--objectives", objectives, "--baselines", "none"]
    assert main([*command, "--output", str(tmp_path / "run")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert expected in line
    kind, n = ("harmful", 12) if "prefer" in objectives else ("benign", 24)
    found = f"{n} answers {n}: {'a refusal' if label else 'cannot be read'}"
    assert line.endswith(f"that comply with {kind} train prompts, found of {found}")
    assert not (tmp_path / "run/variants/unsafe_experts/delta.safetensors").exists()
