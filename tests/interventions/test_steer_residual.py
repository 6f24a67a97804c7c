"""A direction from the identify prompts is added to one layer's hidden states, towards refusal only."""

from __future__ import annotations

import pytest
import torch
import yaml

from harness.base.errors import BadInputError
from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.interventions.base import Prepared, Variant
from harness.interventions.spec import find_variant
from harness.models.moe import find_moe

HARMFUL, BENIGN = [[100, 101, 102], [140, 141]], [[200, 201, 202, 203], [7, 9], [300]]
IDS = torch.arange(400, 464).reshape(2, 32)


def specify(folder, **fields):
    spec = {
        "name": "mine",
        "description": "Mine.",
        "intervention": "steer_residual",
        "depth": 0.5,
        "strength": 1.5,
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(spec | fields))
    return find_variant("mine", [folder])


def states(model, ids) -> list[torch.Tensor]:
    """What each layer but the first is given, and the logits."""
    given: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda module, args, kwargs: given.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        for layer in model.model.layers[1:]
    ]
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return [*given, logits]


def test_one_layers_output_moves_by_strength_times_the_difference_of_means(tiny_model, family, tmp_path):
    model, spec = tiny_model(family), specify(tmp_path)
    last = {
        kind: torch.stack([states(model, torch.tensor([ids]))[1][0, -1] for ids in prompts])
        for kind, prompts in (("harmful", HARMFUL), ("benign", BENIGN))
    }
    step = 1.5 * (last["harmful"].mean(0) - last["benign"].mean(0))
    made = Prepared(Variant("mine", spec), identify={"harmful": HARMFUL, "benign": BENIGN})
    before = states(model, IDS)
    with spec.in_memory(find_moe(model), made):
        inside = states(model, IDS)
    assert torch.equal(inside[0], before[0])
    torch.testing.assert_close(inside[1] - before[1], step.expand_as(before[1]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(inside[2], before[2])
    assert all(map(torch.equal, states(model, IDS), before))


def run(folder, *more: str) -> int:
    command = ["run", "--include", str(folder), "--intervention", "mine", "--baselines", "none"]
    command += ["--limit", "10", "--max-new-tokens", "8", "--capability", "none"]
    return main([*command, "--output", str(folder / "run"), *more])


@pytest.mark.slow
def test_a_run_captures_and_trains_nothing_and_is_done_again_for_other_identify_prompts(tmp_path, capsys):
    specify(tmp_path)
    assert run(tmp_path) == 0
    stages = list(read_json(tmp_path / "run/run.json")["stages"])
    assert not [name for name in stages if name.startswith(("capture", "select", "train", "prove"))]
    file = tmp_path / "run/variants/mine/responses/demo_benign.jsonl"
    written, rows = file.stat().st_mtime_ns, read_jsonl(file)
    assert rows != read_jsonl(tmp_path / "run/variants/base/responses/demo_benign.jsonl")
    capsys.readouterr()
    assert run(tmp_path) == 0
    assert file.stat().st_mtime_ns == written
    assert "loading" not in capsys.readouterr().err
    assert run(tmp_path, "--limit", "identify=15,test=10") == 0
    assert file.stat().st_mtime_ns != written
    assert not list((tmp_path / "run/variants").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strength": -1.0}, "strength: expected more than 0, found -1.0"),
        ({"strength": 0}, "strength: expected more than 0, found 0"),
        ({"depth": 1.5}, "depth: expected at most 1, found 1.5"),
    ],
)
def test_it_is_added_and_never_taken_away(tmp_path, fields, message):
    with pytest.raises(BadInputError, match=message):
        specify(tmp_path, **fields)


def test_vllm_refuses_it_by_name(tmp_path, monkeypatch, capsys):
    specify(tmp_path)
    monkeypatch.setattr("harness.engines.vllm.kind.why_vllm_is_unusable", lambda gpu: None)
    assert run(tmp_path, "--engine", "vllm") == 2
    assert (
        "engine vllm cannot serve variant 'mine' (intervention 'steer_residual')" in capsys.readouterr().err
    )


def test_without_benign_identify_prompts_it_is_one_line(tmp_path, capsys):
    specify(tmp_path)
    assert run(tmp_path, "--tasks", "demo_harmful") == 2
    assert "benign prompts for 'identify'" in capsys.readouterr().err
