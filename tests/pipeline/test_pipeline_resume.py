"""Running again, as a whole; see test_fingerprints.py for what depends on which setting, tests/runs for `@stage`."""

from __future__ import annotations

import json
import shutil

import pytest

from harness.base.files import read_json, read_jsonl, write_jsonl
from harness.cli.main import main
from harness.engines.transformers import TransformersKind
from harness.runs.integrity import verify_run
from tests.conftest import SMALL_RUN

TASKS = ["demo_harmful", "demo_benign", "demo_twins"]


def test_a_second_run_does_nothing_and_does_not_load_the_model(rerun, small_run, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("harness.engines.in_memory.load_model", refuse)
    folder, stages = rerun()
    assert stages == []
    assert (folder / "summary.json").read_bytes() == (small_run / "summary.json").read_bytes()


def test_edited_answers_are_made_again_as_they_were_and_the_file_is_named(
    rerun, small_run, tmp_path, capsys, findings
):
    """An edit must not be measured, listed in a new manifest and so pass `check`."""
    name = "variants/base/responses/demo_twins.jsonl"
    rows = read_jsonl(tmp_path / "run" / name)
    write_jsonl(tmp_path / "run" / name, [row | {"response": "I cannot help with that."} for row in rows])
    folder, stages = rerun()
    assert stages == ["answer base/demo_twins"]
    assert f"{name} is not what the run wrote: making it again" in capsys.readouterr().err.splitlines()
    assert findings(folder) == findings(small_run)


@pytest.mark.slow
def test_a_changed_learning_rate_trains_and_evaluates_again_and_changing_back_gives_the_first_results(
    rerun, findings
):
    folder, _ = rerun("--baselines", "none")
    before = findings(folder)
    _, stages = rerun("--baselines", "none", "--set", "training.learning_rate=1e-2")
    again = {f"{what} unsafe_experts" for what in ("train", "prove", "drift", "capability")}
    again |= {f"{what} unsafe_experts/{task}" for what in ("answer", "judge") for task in TASKS}
    # Verdicts are those of the answers, whoever gave them: the same answers have no others.
    assert {s for s in again if not s.startswith("judge")} <= set(stages) <= again
    assert findings(folder) != before
    rerun("--baselines", "none")
    assert findings(folder) == before


@pytest.mark.slow
def test_lost_files_are_made_again_and_are_the_same(rerun, small_run, tmp_path, findings):
    lost = {
        "variants/base/responses/demo_twins.jsonl": "answer base/demo_twins",
        "variants/steer/capability.json": "capability steer",
        "variants/unsafe_experts/delta.json": "train unsafe_experts",
        "variants/all_experts/proof.json": "prove all_experts",
        "variants/steer/selection.json": "select steer",
        "variants/steer/verdicts/demo_twins.builtin.jsonl": "judge steer/demo_twins",
        "variants/steer/drift.json": "drift steer",
        "routing/demo_benign.safetensors": "capture demo_benign",
        "routing/test/demo_harmful.safetensors": "answer base/demo_harmful",
        "training/demo_benign.jsonl": "own answers demo_benign",
        "experts.parquet": "expert table",
    }
    for name in lost:
        (tmp_path / "run" / name).unlink()
    folder, stages = rerun()
    assert sorted(stages) == sorted(lost.values())
    assert findings(folder) == findings(small_run)


def test_answers_are_the_same_whether_routing_is_captured_meanwhile_or_not(rerun, small_run, monkeypatch):
    reason = "this engine does not say"
    monkeypatch.setattr(TransformersKind, "why_answers_change_with_capture", lambda *_: reason)
    folder, stages = rerun()
    assert stages == [f"answer base/{task}" for task in TASKS]
    for task in TASKS:
        name = f"variants/base/responses/{task}.jsonl"
        assert (folder / name).read_bytes() == (small_run / name).read_bytes()
        # Routing of earlier answers is not taken for theirs.
        assert not (folder / f"routing/test/{task}.safetensors").exists()
    assert read_json(folder / "summary.json")["selection"]["held_out"] is None
    assert read_json(small_run / "summary.json")["selection"]["held_out"]["tasks"] == TASKS


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


@pytest.mark.slow
def test_the_same_seed_gives_the_same_results_to_the_byte(repeated, findings):
    first, again, _ = repeated
    assert findings(first) == findings(again)


@pytest.mark.slow
def test_another_seed_gives_other_splits_and_draws(repeated):
    first, _, other = repeated
    ids = [read_json(folder / "splits.json")["tasks"]["demo_benign"]["ids"] for folder in (first, other)]
    assert ids[0]["test"] != ids[1]["test"]
    drawn = [read_json(folder / "variants/random_experts/selection.json") for folder in (first, other)]
    assert drawn[0]["experts"] != drawn[1]["experts"]
    seeds = [read_json(folder / "summary.json")["seeds"] for folder in (first, other)]
    assert seeds[0]["splits"] == 3
    assert seeds[0]["random_experts"] != seeds[1]["random_experts"]


@pytest.mark.slow
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


def _edited(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


DAMAGES = {
    "edited": _edited,
    "cut": lambda content: content[: len(content) // 2],
    "malformed": lambda content: b"\x80{]",
}


_MADE_EACH_TIME = ("splits.json", "judges/builtin.json")


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_whatever_file_of_a_stage_is_damaged_is_named_and_made_again_and_no_figure_changes(
    rerun, small_run, tmp_path, capsys, findings, damage
):
    """All of them at once: capability, drift, own answers, deltas, examples, proofs, tables, test routing."""
    stages = read_json(tmp_path / "run" / "run.json")["stages"]
    damaged = [next(iter(record["files"])) for record in stages.values()]
    for part in (
        "capability.json",
        "drift.json",
        "training/demo_benign.jsonl",
        "delta.safetensors",
        "proof.json",
    ):
        assert any(name.endswith(part) for name in damaged), part
    damaged += [
        "training/phrasings.json",
        "routing/test/demo_harmful.safetensors",
        "variants/base/served.json",
        *_MADE_EACH_TIME,
    ]
    damaged = [name for name in damaged if (tmp_path / "run" / name).is_file()]
    assert {"experts.parquet", "training/examples.jsonl"} <= {*damaged}
    for name in damaged:
        path = tmp_path / "run" / name
        path.write_bytes(damage(path.read_bytes()))
    folder, again = rerun()
    assert {*stages} == {*again}
    said = capsys.readouterr().err
    for name in [*(next(iter(record["files"])) for record in stages.values()), *_MADE_EACH_TIME]:
        assert f"{name} is not what the run wrote: making it again" in said
    assert findings(folder) == findings(small_run)
    verify_run(folder)


def test_capability_and_drift_of_settings_that_are_gone_are_no_figures_of_the_run(rerun):
    folder, _ = rerun("--baselines", "none", "--capability", "none")
    kinds = {row["kind"] for row in read_json(folder / "summary.json")["measurements"]}
    assert "capability" not in kinds
    assert not list(folder.glob("variants/base/capability.json"))


def test_people_s_labels_that_were_changed_are_refused_with_the_remedy(tmp_path, small_run, capsys):
    folder = shutil.copytree(small_run, tmp_path / "run")
    (folder / "judges" / "labels.jsonl").write_text("{}\n")
    assert main([*SMALL_RUN, "--output", str(folder)]) == 2
    assert "labels.jsonl is not what the run wrote; remove it" in capsys.readouterr().err
