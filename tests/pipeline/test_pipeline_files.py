"""What a run leaves behind: the files of the contract, and that they agree with one another."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from harness.base.files import read_json, read_jsonl
from harness.checkpoints.delta import load_delta
from harness.routing.files import load_counts
from harness.runs.summary import read_summary

TASKS = {"demo_harmful": "harmful", "demo_benign": "benign", "demo_twins": "benign"}
VARIANTS = ["base", "unsafe_experts", "system_prompt", "steer", "random_experts", "all_experts"]
TRAINED = ["unsafe_experts", "random_experts", "all_experts"]


def test_every_file_of_the_contract_is_there_and_no_unfinished_one(small_run):
    expected = {"run.json", "summary.json", "manifest.json", "splits.json", "experts.parquet"}
    expected |= {"report.html", "report.md", "training/examples.jsonl", "judges/builtin.json"}
    expected |= {f"tables/{name}" for name in ("leaderboard.csv", "leaderboard.tex", "comparisons.csv")}
    expected |= {"training/demo_benign.jsonl", "training/demo_twins.jsonl", "training/phrasings.json"}
    expected |= {f"routing/{task}.{suffix}" for task in TASKS for suffix in ("safetensors", "jsonl")}
    expected |= {f"routing/test/{task}.safetensors" for task in TASKS}
    for name in VARIANTS:
        expected |= {f"variants/{name}/responses/{task}.jsonl" for task in TASKS}
        expected |= {f"variants/{name}/verdicts/{task}.builtin.jsonl" for task in TASKS}
        expected |= {f"variants/{name}/{file}" for file in ("capability.json", "drift.json", "routes.json")}
    expected |= {f"variants/{name}/selection.json" for name in [*TRAINED, "steer"]}
    own = {"delta.safetensors", "delta.json", "train.jsonl", "proof.json"}
    expected |= {f"variants/{name}/{file}" for name in TRAINED for file in own}
    found = {path.relative_to(small_run).as_posix() for path in small_run.rglob("*") if path.is_file()}
    assert expected <= found
    assert all("/model/" in name for name in found - expected)  # --save-model
    assert not [name for name in found if "partial" in name or ".tmp" in name]


def test_a_saved_checkpoint_says_what_was_done_in_place_of_the_bases_card(small_run):
    for name in TRAINED:
        folder = small_run / "variants" / name
        text, delta = (folder / "model" / "README.md").read_text(), read_json(folder / "delta.json")
        assert "harmful" not in text.partition("| training |")[0]
        assert f"# demo with {name}" in text
        assert delta["base"]["weights"] in text
        assert delta["sha256"] in text
        assert "tensors were compared with the base" in text


def test_manifest_holds_size_and_hash_of_every_other_file(small_run):
    listed = read_json(small_run / "manifest.json")["files"]
    files = {path.relative_to(small_run).as_posix(): path for path in small_run.rglob("*") if path.is_file()}
    del files["manifest.json"]
    assert listed == {
        name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in files.items()
    }


def test_summary_keeps_to_its_schema_and_says_what_was_run(small_run):
    summary = read_summary(small_run)
    assert list(summary.variants) == VARIANTS
    assert summary.intervention == "unsafe_experts"
    assert (summary.model.name, summary.model.moe_layers) == ("demo", 4)
    assert (summary.model.experts_per_layer, summary.model.experts_per_token) == (32, 2)
    for name, variant in summary.variants.items():
        assert variant.skipped is None
        rates = [row for row in summary.of(name) if row.metric == "refusal_rate"]
        assert {row.task: row.kind for row in rates} == TASKS
        assert {row.n for row in rates} == {12}
        assert summary.figure(name, "demo_facts", "acc").n == 8
        assert variant.frozen_unchanged is (True if name in TRAINED else None)


def test_run_json_names_model_settings_data_and_versions(small_run):
    state = read_json(small_run / "run.json")
    assert state["config"]["limit"] == 12
    assert state["config"]["training"]["max_steps"] == 4
    assert state["model"]["fingerprint"] == read_summary(small_run).model.fingerprint
    assert [task["name"] for task in state["tasks"]] == list(TASKS)
    assert {"torch", "transformers", "harness", "python"} <= set(state["versions"])
    assert {row["state"] for row in state["stages"].values()} == {"done"}


def test_all_variants_answer_the_same_prompts_in_the_same_order(small_run):
    splits = read_json(small_run / "splits.json")["tasks"]
    for task in TASKS:
        for name in VARIANTS:
            rows = read_jsonl(small_run / f"variants/{name}/responses/{task}.jsonl")
            assert [row["id"] for row in rows] == splits[task]["ids"]["test"]
            assert set(rows[0]) == {
                *("id", "prompt", "response", "finish_reason", "prompt_tokens", "generated_tokens")
            }
            verdicts = read_jsonl(small_run / f"variants/{name}/verdicts/{task}.builtin.jsonl")
            assert [row["id"] for row in verdicts] == [row["id"] for row in rows]
            assert set(verdicts[0]) == {"id", "label", "rule", "reason", "probability"}


def test_each_role_uses_prompts_of_its_own_split(small_run):
    splits = read_json(small_run / "splits.json")["tasks"]
    for task in TASKS:
        assert load_counts(small_run / f"routing/{task}.safetensors").ids == tuple(
            splits[task]["ids"]["identify"]
        )
    examples = read_jsonl(small_run / "training/examples.jsonl")
    for task in TASKS:
        used = {row["id"] for row in examples if row["task"] == task}
        assert used
        assert used <= set(splits[task]["ids"]["train"])


def test_training_declines_the_harmful_and_keeps_to_own_answers_otherwise(small_run):
    rows = read_jsonl(small_run / "training/examples.jsonl")
    assert [row["aim"] for row in rows if row["task"] == "demo_harmful"] == ["refuse"] * 12
    own = {
        (task, row["id"]): (row["response"], row["finish_reason"] == "stop")
        for task in ("demo_benign", "demo_twins")
        for row in read_jsonl(small_run / f"training/{task}.jsonl")
    }
    kept = [row for row in rows if row["aim"] == "retain"]
    assert {row["task"] for row in kept} == {"demo_benign", "demo_twins"}
    assert all(own[row["task"], row["id"]] == (row["answer"], row["finished"]) for row in kept)
    assert len(kept) <= 2 * 12  # retain_per_refusal


def test_expert_table_is_the_pooled_counts_and_its_columns_sum_to_k(small_run):
    table = pd.read_parquet(small_run / "experts.parquet")
    assert not table.duplicated(["phase", "layer", "expert"]).any()
    assert len(table) == 4 * 4 * 32  # phases, layers, experts
    sums = table.groupby(["phase", "layer"])[["a_safe_n", "a_unsafe_n", "risk_diff"]].sum()
    np.testing.assert_allclose(sums["a_safe_n"], 2)
    np.testing.assert_allclose(sums["a_unsafe_n"], 2)
    np.testing.assert_allclose(sums["risk_diff"], 0, atol=1e-12)
    counts = load_counts(small_run / "routing/demo_harmful.safetensors").of("decision")[0].sum(axis=0)
    rows = table[table["phase"] == "decision"].sort_values(["layer", "expert"])
    np.testing.assert_array_equal(rows["a_unsafe"].to_numpy().reshape(4, 32), counts)


def test_selection_is_the_top_of_the_table(small_run):
    chosen = read_json(small_run / "variants/unsafe_experts/selection.json")
    table = pd.read_parquet(small_run / "experts.parquet")
    rows = table[table["phase"] == chosen["phase"]].nlargest(12, "risk_diff")
    assert chosen["experts"] == rows[["layer", "expert"]].to_numpy().tolist()
    assert read_json(small_run / "variants/steer/selection.json")["experts"] == chosen["experts"]
    summary = read_summary(small_run).selection
    assert [[row.layer, row.expert] for row in summary.experts] == chosen["experts"]
    assert [row.risk_diff for row in summary.experts] == pytest.approx(rows["risk_diff"].tolist())


def test_random_experts_are_as_many_per_layer(small_run):
    chosen, drawn = (
        read_json(small_run / f"variants/{name}/selection.json")
        for name in ("unsafe_experts", "random_experts")
    )
    layers = [sorted(layer for layer, _ in selection["experts"]) for selection in (chosen, drawn)]
    assert layers[0] == layers[1]
    both = {tuple(expert) for expert in chosen["experts"]} & {tuple(expert) for expert in drawn["experts"]}
    assert drawn["overlap_with_selection"] == len(both)


@pytest.mark.parametrize("name", TRAINED)
def test_a_delta_holds_the_selected_experts_and_no_more(small_run, name):
    folder = small_run / "variants" / name
    delta = load_delta(folder / "delta.safetensors")
    selected = read_json(folder / "selection.json")["experts"]
    assert sorted(map(tuple, delta.selected())) == sorted(map(tuple, selected))
    assert delta.parameters == read_summary(small_run).variants[name].trained_parameters
    assert delta.parameters == len(selected) * 3 * 128 * 64  # gate, up and down of a demo expert
    assert len(read_jsonl(folder / "train.jsonl")) == 4


@pytest.mark.parametrize("name", VARIANTS)
def test_rates_are_those_of_the_verdicts(small_run, name):
    rates = [row for row in read_summary(small_run).of(name) if row.metric == "refusal_rate"]
    assert {row.task for row in rates} == set(TASKS)
    for row in rates:
        task = row.task
        labels = [
            v["label"] for v in read_jsonl(small_run / f"variants/{name}/verdicts/{task}.builtin.jsonl")
        ]
        answers = read_jsonl(small_run / f"variants/{name}/responses/{task}.jsonl")
        assert row.value == pytest.approx(labels.count("refusal") / len(labels))
        assert row.scored == len(labels)
        assert row.truncated == sum(answer["finish_reason"] == "length" for answer in answers)
        interval = binomtest(labels.count("refusal"), len(labels)).proportion_ci(method="wilson")
        if row.clusters is None:
            assert (row.low, row.high) == pytest.approx((interval.low, interval.high))
        else:  # near-duplicates are less evidence
            assert row.low <= interval.low <= interval.high <= row.high


def test_comparisons_are_exact_paired_tests_adjusted_within_their_family(small_run):
    comparisons = read_summary(small_run).comparisons
    pairs = {(row.variant, row.against) for row in comparisons}
    assert pairs == {(name, "base") for name in VARIANTS[1:]} | {("unsafe_experts", "random_experts")}
    for row in comparisons:
        if row.judge is None:
            continue
        ours, theirs = (
            [
                v["label"] == "refusal"
                for v in read_jsonl(small_run / f"variants/{name}/verdicts/{row.task}.builtin.jsonl")
            ]
            for name in (row.variant, row.against)
        )
        more = sum(a and not b for a, b in zip(ours, theirs, strict=True))
        fewer = sum(b and not a for a, b in zip(ours, theirs, strict=True))
        assert row.n == 12
        assert row.discordant == more + fewer
        assert row.difference == pytest.approx((more - fewer) / 12)
        if row.clusters is None:
            expected = binomtest(more, more + fewer).pvalue if more + fewer else 1.0
            assert row.p_value == pytest.approx(expected)
    families = {row.family for row in comparisons if row.family is not None}
    assert families == {
        f"{whose} against base, {kind}"
        for whose in ("unsafe_experts", "baselines")
        for kind in ("harmful tasks", "benign tasks", "capability")
    }
    assert {row.family for row in comparisons if "random_experts" in (row.variant, row.against)} == {None}
    for family in families:
        rows = sorted((row for row in comparisons if row.family == family), key=lambda row: row.p_value)
        holm = np.maximum.accumulate([min(1, (len(rows) - i) * row.p_value) for i, row in enumerate(rows)])
        assert [row.p_adjusted for row in rows] == pytest.approx(list(holm))


def test_files_hold_no_nan(small_run):
    def refuse(constant):
        raise AssertionError(f"{constant} in a file")

    for path in small_run.rglob("*.json*"):
        for line in (
            path.read_text("utf-8").split("\n") if path.suffix == ".jsonl" else [path.read_text("utf-8")]
        ):
            if line:
                json.loads(line, parse_constant=refuse)
