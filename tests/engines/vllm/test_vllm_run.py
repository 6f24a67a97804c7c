"""The main job with vLLM finds what it finds with transformers, on the demo model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.base.files import read_json, read_jsonl, write_json
from harness.capability.lm_eval import run_capability
from harness.cli.main import main
from harness.engines.transformers import TransformersEngine
from harness.models.load import resolve_model
from harness.routing.files import load_counts
from harness.runs.summary import read_summary

RUN = ("run", "--intervention", "unsafe_experts", "--baselines", "steer", "--capability-limit", "8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for engine in ("vllm", "transformers"):
        assert main([*RUN, "--engine", engine, "--output", str(folder / engine)]) == 0
    return folder / "vllm", folder / "transformers"


def test_the_selection_and_every_verdict_are_the_same(runs):
    vllm, transformers = runs
    ours, expected = (read_json(run / "summary.json") for run in runs)
    assert ours["decoding"]["engine"] == "vllm"
    chosen = [[(e["layer"], e["expert"]) for e in s["selection"]["experts"]] for s in (ours, expected)]
    assert chosen[0] == chosen[1]
    for path in sorted(transformers.glob("variants/*/responses/*.jsonl")):
        mine = vllm / path.relative_to(transformers)
        differing = [
            (a["id"], a["response"], b["response"])
            for a, b in zip(read_jsonl(mine), read_jsonl(path), strict=True)
            if a != b
        ]
        assert not differing, path
    for path in sorted(transformers.glob("variants/*/verdicts/*.jsonl")):
        assert (vllm / path.relative_to(transformers)).read_bytes() == path.read_bytes()
    for path in sorted(transformers.glob("routing/*.safetensors")):
        a, b = load_counts(vllm / path.relative_to(transformers)), load_counts(path)
        np.testing.assert_array_equal(a.counts, b.counts)
    # Not a run in which nothing happened.
    assert (
        read_summary(vllm).figure("unsafe_experts", "demo_harmful", "refusal_rate", ours["judge"]).value > 0.9
    )


def test_capability_through_vllm_is_capability_through_transformers(runs):
    ours, expected = (
        {
            (row.variant, row.task): row.value
            for row in read_summary(run).measurements
            if row.kind == "capability"
        }
        for run in runs
    )
    assert expected
    assert ours == expected


def test_what_was_served_is_on_record(runs):
    served = {path.parent.name: read_json(path) for path in runs[0].glob("variants/*/served.json")}
    assert set(served) == {"base", "unsafe_experts", "steer"}
    base = read_json(runs[0] / "run.json")["model"]["fingerprint"]
    assert served["base"]["fingerprint"] == served["steer"]["fingerprint"] == base
    assert served["unsafe_experts"]["fingerprint"] != base
    assert served["steer"]["masked_experts"]
    for name in ("unsafe_experts", "steer"):
        compared = served[name]["log_probs"]
        assert compared["gap"] < compared["tolerance"] < compared["from_base"]
    # The checkpoint was for vLLM alone.
    assert not list(runs[0].glob("variants/*/served"))


def test_generated_answers_of_lm_eval_come_from_vllm(tmp_path, demo, vllm_engine):
    """gsm8k in the demo's own words: free generation up to a stop string."""
    task = {
        "task": "count_apples",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "items.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 12},
        "metric_list": [{"metric": "exact_match"}],
    }
    (tmp_path / "items.jsonl").write_text(
        "".join(json.dumps({"question": f"Name {n} fruits", "answer": "apple"}) + "\n" for n in range(3))
    )
    import lm_eval.tasks

    from harness.capability.lm_eval import _quiet

    write_json(tmp_path / "count_apples.yaml", task)
    engine = vllm_engine(resolve_model("demo"))
    answers = []
    for lm in (
        engine.lm_eval_model(4, "vllm"),
        TransformersEngine(demo, 4).lm_eval_model(4, "hf"),
    ):
        manager = lm_eval.tasks.TaskManager(include_path=str(tmp_path), include_defaults=False)
        lm.as_chat = True
        with _quiet():
            results = lm_eval.simple_evaluate(
                model=lm, tasks=["count_apples"], task_manager=manager, apply_chat_template=True
            )
        answers.append([sample["resps"] for sample in results["samples"]["count_apples"]])
    assert answers[0] == answers[1]


def test_a_model_that_vllm_has_no_code_for_is_refused_by_name(tiny_model, saved_model, capsys):
    folder = saved_model(tiny_model("olmoe"))
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"architectures": ["OlmoeForNothing"]})
    assert main(["run", "--model", str(folder), "--engine", "vllm", "--output", str(folder / "run")]) == 2
    error = capsys.readouterr().err
    assert "has no model 'OlmoeForNothing'" in error
    assert "--engine transformers" in error
    assert not (folder / "run").exists()


def test_run_capability_needs_no_transformers_model_with_vllm(demo, vllm_engine):
    engine = vllm_engine(resolve_model("demo"))
    found = run_capability(engine, ["demo_facts"], limit=6)
    expected = run_capability(TransformersEngine(demo, 8), ["demo_facts"], limit=6)
    assert found["demo_facts"].value == expected["demo_facts"].value
