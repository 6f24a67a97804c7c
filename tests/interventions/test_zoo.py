"""Published methods beside ours: each is a baseline with its source, and all together are `--baselines zoo`."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from harness.base.content import content_folder
from harness.base.errors import BadInputError
from harness.base.files import read_json
from harness.cli.main import main
from harness.config import make_config
from harness.data.refusals import refusals_for
from harness.data.sources import load_tasks
from harness.data.task import find_task
from harness.engines.base import chat_of
from harness.experts.select import ExpertSelection
from harness.interventions.base import Prepared, Variant
from harness.interventions.spec import ZOO, expand, find_variant, list_variants
from harness.models.moe import Expert
from harness.routing.capture import RoutingCapture
from harness.routing.files import load_counts
from harness.runs.run import read_run
from harness.runs.summary import read_summary
from harness.training.examples import make_examples

METHODS = sorted(path.stem for path in content_folder("zoo").glob("*.yaml"))
SMALL = ("--limit", "12", "--capability", "none")


def test_every_method_says_where_it_comes_from_and_what_is_left_out():
    assert METHODS == ["esft", "guide", "lora_all", "refusal_direction", "safex", "steermoe"]
    for name in METHODS:
        spec = find_variant(name)
        assert spec.citation
        assert spec.left_out
        assert all(isinstance(value, int | float) for value in spec.published.values())


def test_what_is_shipped_points_towards_safety():
    specs = list_variants()
    assert {name for name, spec in specs.items() if spec.intervention in ("mask", "steer", "activate")} == {
        "steer",
        "steermoe",
    }
    assert specs["steermoe"].model_dump()["selection"]["direction"] == "safe"
    assert specs["steer"].model_dump()["selection"] is None


def test_one_name_stands_for_all_of_them_and_a_file_of_that_name_wins(tmp_path, capsys):
    assert expand(["steer", ZOO]) == ["steer", *METHODS]
    command = ["run", "--baselines", "steer,zoo,esft", *SMALL, "--dry-run", "--json"]
    assert main([*command, "--output", str(tmp_path / "run")]) == 0
    rows = json.loads(capsys.readouterr().out)["variants"]
    assert [row["name"] for row in rows] == ["base", "unsafe_experts", "steer", *METHODS]
    assert {row["name"] for row in rows if row["trained_parameters"] == 0} == {
        *("base", "steer", "refusal_direction", "steermoe")
    }
    (tmp_path / "zoo.yaml").write_text("name: zoo\ndescription: Mine.\nintervention: none\n")
    assert expand([ZOO], [tmp_path]) == [ZOO]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "selection: expected direction: safe"),
        ({"selection": {"direction": "unsafe"}}, "selection: expected direction: safe"),
        ({"experts": "all"}, "experts: expected 'selected', 'random' or 'most_used', found 'all'"),
        ({"experts": "some"}, "experts: expected 'selected', 'random', 'most_used' or 'all'"),
        (
            {"intervention": "steer", "selection": {"direction": "safe"}},
            "are not silenced: direction: unsafe",
        ),
        ({"experts": "random", "selection": {"top_k": 3}}, "selection: only experts: selected have one"),
        ({"selection": {"direction": "safe", "topk": 3}}, "did you mean 'top_k'"),
        (
            {"selection": {"direction": "safe", "top_p": 1.5}},
            "selection.top_p: expected at most 1, found 1.5",
        ),
        ({"selection": {"direction": "safe", "resamples": 200}}, "resamples: unknown key"),
    ],
)
def test_a_selection_of_its_own_that_is_not_right_is_one_line(tmp_path, fields, message):
    specify(tmp_path, **fields)
    with pytest.raises(BadInputError, match=message) as refusal:
        find_variant("mine", [tmp_path])
    assert "\n" not in str(refusal.value)


def specify(folder, **fields) -> None:
    spec = {"name": "mine", "description": "Mine.", "intervention": "activate", "experts": "selected"}
    (folder / "mine.yaml").write_text(yaml.safe_dump(spec | fields))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"method": "stabilty"}, "mine: selection.method: unknown selection method 'stabilty', did you mean"),
        ({"method": "length_cut"}, "mine: selection.method = length_cut needs single tokens"),
        ({"top_k": 500}, "mine: selection.top_k = 500: 'demo' has 128 experts"),
        (
            {"method": "stability", "direction": "safe"},
            "mine: selection.direction = safe: stability and q-values are those of the run's direction, unsafe",
        ),
    ],
)
def test_a_selection_that_the_model_or_the_run_cannot_give_is_refused_in_the_plan(
    tmp_path, capsys, selection, message
):
    specify(tmp_path, intervention="train_experts", selection=selection)
    command = ["run", "--include", str(tmp_path), "--baselines", "mine", *SMALL]
    assert main([*command, "--output", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_a_run_selects_as_safe_is_not_silenced(tmp_path, capsys):
    reason = "experts that go with safe answers are not silenced"
    run = tmp_path / "run"
    command = ["run", "--direction", "safe", *SMALL, "--output", str(run)]
    assert main([*command, "--intervention", "steer", "--baselines", "none", "--dry-run"]) == 2
    assert f"steer: selection.direction = safe: {reason}" in capsys.readouterr().err
    assert main([*command, "--intervention", "base", "--baselines", "steer"]) == 0
    assert f"skipping steer: {reason}" in capsys.readouterr().err
    assert read_run(run).summary.variants["steer"].skipped == reason


def test_activated_experts_are_in_the_top_k_of_every_token_and_too_many_have_a_reason(demo):
    from watched import routed

    spec = find_variant("steermoe")
    chosen = ExpertSelection("paired", "generation", (Expert(0, 5), Expert(2, 7)))
    before = routed(demo.moe)
    with spec.in_memory(demo.moe, Prepared(Variant("steermoe", spec), chosen)):
        inside = routed(demo.moe)
    assert (inside[0] == 5).any(-1).all()
    assert (inside[2] == 7).any(-1).all()
    assert torch.equal(routed(demo.moe), before)
    many = ExpertSelection("paired", "generation", tuple(Expert(1, number) for number in range(3)))
    assert "would activate 3 experts" in str(spec.why_impossible(demo.moe, many))


def experts_of(folder, name) -> list[tuple[int, int]]:
    return [tuple(expert) for expert in read_json(folder / f"variants/{name}/selection.json")["experts"]]


def per_layer(experts) -> dict[int, int]:
    return {layer: sum(each == layer for each, _ in experts) for layer, _ in sorted(experts)}


def test_each_variant_acts_on_its_own_selection_and_draws_are_matched_with_the_interventions(tmp_path):
    command = ["select", "--intervention", "esft", "--baselines", "unsafe_experts,random_experts,steermoe"]
    assert main([*command, *SMALL, "--draws", "2", "--output", str(tmp_path)]) == 0
    table = pd.read_parquet(tmp_path / "experts.parquet")
    whole = table[table["phase"] == "all"]
    for layer, rows in whole.groupby("layer"):
        # The fewest experts that hold a fifth of the layer's routed tokens.
        use = rows.sort_values("a_unsafe_n", ascending=False)
        n = int((use["a_unsafe_n"].cumsum() < 0.2 * use["a_unsafe_n"].sum()).sum()) + 1
        chosen = {expert for at, expert in experts_of(tmp_path, "esft") if at == layer}
        assert chosen == {*use["expert"][:n]}
    own = experts_of(tmp_path, "unsafe_experts")
    decision = table[table["phase"] == "decision"].nlargest(12, "risk_diff")
    assert {*own} == {*zip(decision["layer"], decision["expert"], strict=True)}
    for name in ("random_experts", "random_experts_2"):
        assert per_layer(experts_of(tmp_path, name)) == per_layer(experts_of(tmp_path, "esft"))
    shared = read_json(tmp_path / "variants/unsafe_experts/selection.json")["overlap_with_selection"]
    assert shared == len({*own} & {*experts_of(tmp_path, "esft")})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the methods that act without training, and how many seconds it took."""
    folder, before = tmp_path_factory.mktemp("zoo") / "run", time.monotonic()
    command = ["run", "--intervention", "steermoe", "--baselines", "refusal_direction", *SMALL]
    assert main([*command, "--output", str(folder)]) == 0
    return folder, time.monotonic() - before


GATE = """
gates:
  - {name: n, metric: refusal_rate, task: demo_harmful, variant: steermoe, against: base, at_most_below: 0.5}
"""


@pytest.mark.slow
def test_what_acts_without_training_runs_on_the_demo_in_seconds_and_is_gated(run, tmp_path):
    folder, seconds = run
    assert seconds < 120
    stages = list(read_json(folder / "run.json")["stages"])
    assert not [name for name in stages if name.startswith(("train", "prove"))]
    assert not list((folder / "variants").rglob("*.safetensors"))
    summary = read_summary(folder)
    assert {name: variant.skipped for name, variant in summary.variants.items()} == dict.fromkeys(
        ("base", "steermoe", "refusal_direction")
    )
    assert summary.selection is not None
    assert (summary.selection.method, summary.selection.direction) == ("paired", "safe")
    assert max(per_layer(experts_of(folder, "steermoe")).values()) == 1
    (tmp_path / "gates.yaml").write_text(GATE)
    assert main(["check", str(folder), "--gates", str(tmp_path / "gates.yaml")]) == 0


@pytest.mark.slow
def test_the_paired_score_is_own_compliant_answers_less_refusals_of_the_same_prompts(run, demo):
    """Counted again here, one conversation at a time and without padding."""
    folder, _ = run
    counts = load_counts(folder / "routing/demo_harmful.safetensors")
    by_id = {prompt.id: prompt for prompt in load_tasks([find_task("demo_harmful")])[0].prompts}
    prompts = [by_id[id] for id in counts.ids]
    used, tokens = counts.of("generation")
    chat = chat_of(make_config({"model": "demo"}), demo.tokenizer)
    examples = make_examples(
        chat,
        [prompt.text for prompt in prompts],
        refusals_for(prompts, 0),
        [True] * len(prompts),
        chat.turn.end(demo.ends),
        "refuse",
    )
    refused, total = np.zeros(used.shape[1:]), 0
    for example in examples:
        capture = RoutingCapture(demo.moe)
        with capture.installed(), torch.inference_mode():
            demo.moe.model(torch.tensor([[*example.prompt, *example.answer[:-1]]]), use_cache=False)
        chosen = capture.take(1).experts[:, 0, len(example.prompt) :]
        for layer, experts in enumerate(chosen):
            np.add.at(refused[layer], experts.long().numpy().ravel(), 1)
        total += chosen.shape[1]
    expected = used.sum(0) / tokens.sum() - refused / total
    table = pd.read_parquet(folder / "experts.parquet")
    found = table[table["phase"] == "generation"].sort_values(["layer", "expert"])["paired"].to_numpy()
    assert np.allclose(found, expected.ravel())
    lowest = np.argsort(found)[0]
    assert divmod(int(lowest), 32) in experts_of(folder, "steermoe")


@pytest.mark.slow
def test_a_base_that_refuses_already_has_no_pairs_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("harness.pipeline.paired.FEWEST_PROMPTS", 1000)
    command = ["select", "--intervention", "steermoe", "--baselines", "none", *SMALL]
    assert main([*command, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "paired is left out: base complied with" in error
    assert "the expert table has no 'paired' in this phase: base complied with too few" in error


def test_a_baseline_whose_own_selection_finds_nothing_is_skipped_with_the_reason_and_an_intervention_refused(
    tmp_path, capsys
):
    specify(tmp_path, intervention="steer", selection={"method": "risk_diff", "threshold": 0.99})
    command = ["run", "--include", str(tmp_path), "--max-new-tokens", "8", *SMALL]
    folder = tmp_path / "run"
    assert main([*command, "--intervention", "steer", "--baselines", "mine", "--output", str(folder)]) == 0
    reason = read_summary(folder).variants["mine"].skipped
    assert reason is not None
    assert reason.startswith("no expert is left by selection.threshold = 0.99: the highest risk_diff is")
    assert "skipping mine: no expert is left" in capsys.readouterr().err
    command += ["--intervention", "mine", "--baselines", "none"]
    assert main([*command, "--output", str(tmp_path / "other")]) == 2
    assert "no expert is left by selection.threshold = 0.99" in capsys.readouterr().err


def test_how_experts_were_selected_changes_no_answer_where_they_are_the_same():
    chosen = ExpertSelection("stability", "all", (Expert(0, 5),))
    safex, ours = (
        Prepared(Variant(name, find_variant(name)), chosen).fingerprint
        for name in ("safex", "unsafe_experts")
    )
    assert safex == ours
