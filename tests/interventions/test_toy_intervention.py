"""A new kind of intervention is one class and one YAML file; nothing else in the package knows of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml
from pydantic import Field

from harness.base.errors import BadInputError
from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.interventions.base import INTERVENTIONS, Intervention, Prepared
from harness.interventions.spec import find_variant
from harness.runs.run_folder import RunFolder


class Damp(Intervention):
    """What the experts say counts for less."""

    factor: float = Field(ge=0, le=1)

    @contextmanager
    def in_memory(self, moe, made: Prepared) -> Iterator[None]:
        hooks = [
            layer.experts.register_forward_hook(lambda module, args, out: out * self.factor)
            for layer in moe.layers
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@pytest.fixture(scope="module")
def include(tmp_path_factory):
    """A folder to include, with a variant of the new kind; the kind is known as long as the tests of this file run."""
    folder = tmp_path_factory.mktemp("mine")
    write(folder)
    INTERVENTIONS.add("damp", Damp)
    yield folder
    del INTERVENTIONS._entries["damp"]


def write(folder, **fields):
    spec = {"name": "quiet", "description": "Quiet.", "intervention": "damp", "factor": 0.0, **fields}
    (folder / "quiet.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))


@pytest.fixture(scope="module")
def run(include, tmp_path_factory):
    """Run it on the demo model; returns a function that does so again and says which stages were done."""
    folder = tmp_path_factory.mktemp("toy") / "run"
    command = ["run", "--include", str(include), "--intervention", "quiet", "--baselines", "system_prompt"]
    command += ["--limit", "8", "--max-new-tokens", "8", "--capability", "none", "--output", str(folder)]

    def again(*more: str) -> list[str]:
        assert main([*command, *more]) == 0
        return list(RunFolder(folder).state["stages"])

    assert again()
    again.folder = folder
    return again


def responses(run, variant):
    return [
        row["response"] for row in read_jsonl(run.folder / f"variants/{variant}/responses/demo_benign.jsonl")
    ]


def test_the_variant_answers_otherwise_and_is_described_in_full(run):
    assert responses(run, "quiet") != responses(run, "base")
    variants = read_json(run.folder / "run.json")["variants"]
    assert list(variants) == ["base", "quiet", "system_prompt"]
    assert variants["quiet"] == {
        **{"name": "quiet", "description": "Quiet.", "citation": None},
        **{"intervention": "damp", "factor": 0.0, "draw": None},
    }
    assert variants["system_prompt"]["system_prompt"].startswith("You are a helpful and careful assistant.")


def test_it_stands_in_report_leaderboard_and_gate(run, tmp_path, capsys):
    assert "quiet" in (run.folder / "report.md").read_text()
    assert main(["report", str(run.folder), "--json"]) == 0
    assert "quiet" in capsys.readouterr().out
    assert (
        main(["report", str(run.folder), str(run.folder.parent), "--csv", str(tmp_path / "board.csv")]) == 0
    )
    assert "quiet" in (tmp_path / "board.csv").read_text()
    gates = tmp_path / "gates.yaml"
    gates.write_text(
        "gates: [{name: one, metric: refusal_rate, task: demo_benign, variant: quiet, at_least: 0.001}]"
    )
    capsys.readouterr()
    # Nothing is refused, so few answers leave it open whether one in a thousand would be.
    assert main(["check", str(run.folder), "--gates", str(gates), "--json"]) == 4
    (row,) = json.loads(capsys.readouterr().out)["gates"]
    assert (row["variant"], row["verdict"]) == ("quiet", "INCONCLUSIVE")


@pytest.mark.slow
def test_it_is_skipped_when_it_is_done_and_a_changed_field_does_it_again(run, include):
    times = {path: path.stat().st_mtime_ns for path in run.folder.rglob("responses/*")}
    first = responses(run, "quiet")
    run()
    assert {path: path.stat().st_mtime_ns for path in times} == times
    write(include, factor=0.9)
    run()
    assert responses(run, "quiet") != first
    changed = {path.parts[-3] for path in times if path.stat().st_mtime_ns != times[path]}
    assert changed == {"quiet"}
    write(include)
    run()
    assert responses(run, "quiet") == first


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"factor": 2}, "factor: expected at most 1, found 2"),
        ({"factr": 0.5}, "factr: unknown key, did you mean 'factor'?"),
        ({"intervention": "dump"}, "intervention: unknown intervention kind 'dump', did you mean 'damp'?"),
    ],
)
def test_its_fields_are_checked_when_its_file_is_read(include, tmp_path, fields, message):
    write(tmp_path, **fields)
    with pytest.raises(BadInputError) as refusal:
        find_variant("quiet", [tmp_path])
    assert str(refusal.value) == f"{tmp_path / 'quiet.yaml'}: {message}"


@pytest.mark.parametrize("place", ["--intervention", "--baselines"])
def test_vllm_refuses_it_by_name_before_anything_is_made(include, tmp_path, monkeypatch, capsys, place):
    """At the plan, as on a machine that has vLLM."""
    monkeypatch.setattr("harness.engines.vllm.kind.why_vllm_is_unusable", lambda gpu: None)
    command = ["run", "--include", str(include), place, "quiet", "--engine", "vllm"]
    assert main([*command, "--output", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        "harness: engine vllm cannot serve variant 'quiet' (intervention 'damp'): vLLM serves checkpoints, deltas "
        "and silenced experts, no other change to a model: use --engine transformers\n"
    )
    assert not (tmp_path / "run").exists()


def test_random_experts_by_any_name_are_draws(tmp_path):
    from harness.config import make_config
    from harness.pipeline.plan import make_plan

    (tmp_path / "mine_random.yaml").write_text(
        "name: mine_random\ndescription: x\nintervention: steer\nexperts: random\n"
    )
    plan = make_plan(make_config({"include": [tmp_path], "baselines": ["mine_random"], "draws": 2}))
    drawn = [variant for variant in plan.variants if variant.spec.is_drawn]
    assert [(variant.name, variant.record()["draw"]) for variant in drawn] == [
        ("mine_random", 0),
        ("mine_random_2", 1),
    ]
