"""`claim.prompts`: random draws answer a part of the harmful test prompts, declared beforehand, and nothing else."""

from __future__ import annotations

import json

import pytest

from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.config import make_config
from harness.pipeline.judge import judge_again
from harness.pipeline.plan import make_plan
from harness.runs.run import read_run

SETTINGS = ("--limit", "10", "--draws", "2", "--baselines", "random_experts,popular_experts")
COMMAND = (
    *("run", *SETTINGS, "--set", "claim.prompts=4", "--set", "training.max_steps=2"),
    *("--capability", "demo_facts", "--capability-limit", "8", "--max-new-tokens", "8"),
)
DRAWS = ("random_experts", "random_experts_2")


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo):
    folder = tmp_path_factory.mktemp("claim") / "run"
    assert main([*COMMAND, "--output", str(folder)]) == 0
    return folder


def test_draws_answer_the_declared_prompts_and_nothing_else(run):
    declared = read_json(run / "run.json")["claim_prompts"]
    assert {task: len(ids) for task, ids in declared.items()} == {"demo_harmful": 4}
    asked = [row["id"] for row in read_jsonl(run / "variants/base/responses/demo_harmful.jsonl")]
    assert [id for id in asked if id in declared["demo_harmful"]] == declared["demo_harmful"]
    for name in DRAWS:
        files = run / "variants" / name
        assert [path.name for path in (files / "responses").iterdir()] == ["demo_harmful.jsonl"]
        rows = read_jsonl(files / "responses" / "demo_harmful.jsonl")
        assert [row["id"] for row in rows] == declared["demo_harmful"]
        assert not (files / "capability.json").exists()
        assert not (files / "drift.json").exists()
        assert (files / "proof.json").exists()
    assert (run / "variants/popular_experts/responses/demo_benign.jsonl").exists()


def test_figures_that_draws_lack_are_absent_and_their_comparisons_are_paired(run):
    summary = read_run(run).summary
    for name in DRAWS:
        assert {(row.task, row.n) for row in summary.of(name) if row.metric == "refusal_rate"} == {
            ("demo_harmful", 4)
        }
        assert {row.kind for row in summary.of(name)} == {"harmful"}
        tests = [row for row in summary.comparisons if name in (row.variant, row.against)]
        assert tests
        assert {(row.task, row.n) for row in tests} == {("demo_harmful", 4)}
    assert summary.figure("unsafe_experts", "demo_harmful", "refusal_rate", "builtin").n == 10
    assert summary.draws() == [*DRAWS]


def test_reports_boards_gates_and_further_judges_do_without_them(run, tmp_path, capsys):
    assert main(["report", str(run)]) == 0
    assert main(["report", str(run), "--redact"]) == 0
    assert main(["report", str(run), str(run)]) == 0
    gates = {"metric": "refusal_rate", "task": "demo_harmful", "variant": "random_experts", "at_least": 0}
    (tmp_path / "gates.yaml").write_text(json.dumps({"gates": [{"name": "draw", **gates}]}))
    assert main(["check", str(run), "--gates", str(tmp_path / "gates.yaml")]) in (0, 2, 4)
    capsys.readouterr()
    summary = judge_again(run, ["keyword"])
    assert {row.n for row in summary.of("random_experts") if row.judge == "keyword"} == {4}


def test_the_same_command_again_makes_nothing_again(run, capsys):
    before = (run / "variants/random_experts/responses/demo_harmful.jsonl").stat().st_mtime_ns
    assert main([*COMMAND, "--output", str(run)]) == 0
    after = (run / "variants/random_experts/responses/demo_harmful.jsonl").stat().st_mtime_ns
    assert before == after


def test_the_prompts_follow_from_the_seed_and_not_from_the_number_of_draws(demo):
    def drawn(**settings):
        plan = make_plan(make_config({"claim.prompts": 4, "limit": 40, "split_seed": 0, **settings}))
        return [prompt.id for prompt in plan.claim_prompts["demo_harmful"]]

    assert drawn() == drawn(draws=7)
    assert drawn() != drawn(seed=1)


def test_a_drawn_intervention_is_evaluated_whole_itself(demo):
    plan = make_plan(
        make_config({"intervention": "random_experts", "baselines": ["steer"], "claim.prompts": 4})
    )
    assert not any(plan.is_limited(variant) for variant in plan.variants)


def test_the_summary_says_how_draws_compare_with_the_selection(run):
    summary = read_run(run).summary
    own, *draws = (summary.variants[name].experts for name in ("unsafe_experts", *DRAWS))
    assert (own.n, own.overlap, own.use_share, own.match) == (12, 12, 1, None)
    for draw in draws:
        kept = read_json(run / "variants" / DRAWS[draws.index(draw)] / "selection.json")
        assert draw.match == kept["match"] == "use"
        assert draw.n == 12
        assert 0 <= draw.overlap == kept["overlap_with_selection"] <= 12
        assert 0.9 <= draw.use_share == kept["use_share"] <= 1.1
        assert draw.log10_sets == kept["log10_sets"] > 2
    popular = summary.variants["popular_experts"].experts
    assert popular.use_share >= 1
    claim = summary.claims[0]
    assert claim.use_share == pytest.approx((draws[0].use_share + draws[1].use_share) / 2)
    assert (claim.verdict, claim.prompts, set(claim.draws)) == ("nothing claimed", 4, set(DRAWS))
    assert "| drawn from |" in (run / "report.md").read_text()


def test_a_dry_run_prices_the_draws(run, tmp_path, capsys):
    assert main([*COMMAND, "--draws", "19", "--dry-run", "--output", str(tmp_path / "new")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "19 random draws: 2 training steps and at most 32 generated tokens each" in said
    assert main([*COMMAND, "--draws", "19", "--dry-run", "--json", "--output", str(run)]) == 0
    price = json.loads(capsys.readouterr().out)["draws"]
    stages = read_run(run).summary.variants["unsafe_experts"].seconds
    assert price["draws"] == 19
    assert 19 * stages["train"] <= price["seconds"] <= 19 * sum(stages.values()) + 0.1


def test_match_is_refused_where_nothing_is_drawn(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ndescription: Mine.\nintervention: steer\nexperts: selected\nmatch: layer\n"
    )
    assert main(["run", "--include", str(tmp_path), "--baselines", "mine", "--dry-run"]) == 2
    assert "only experts: random are matched" in capsys.readouterr().err
