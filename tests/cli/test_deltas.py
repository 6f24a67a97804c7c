"""`harness models apply` and `diff`: what they print, and how they end."""

from __future__ import annotations

import json

import pytest

from harness.base.files import read_json
from harness.cli.main import main


@pytest.fixture
def variant(small_run):
    return small_run / "variants/unsafe_experts"


@pytest.fixture
def selected(variant):
    return sorted(read_json(variant / "selection.json")["experts"])


@pytest.fixture
def command(capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["models", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_the_delta_of_a_run_gives_the_checkpoint_that_the_run_kept(variant, selected, command, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = command("apply", "demo", variant, out, "--json")
    facts = json.loads(printed)
    assert (code, facts["experts"], facts["method"]) == (0, selected, "streamed")
    assert (out / "model.safetensors").read_bytes() == (variant / "model/model.safetensors").read_bytes()

    code, printed, _ = command("diff", "demo", out, "--json")
    found = json.loads(printed)
    assert code == 0
    # Experts that no token of the short training reached did not move.
    named = [[row["layer"], row["expert"]] for row in found["experts"]]
    assert named
    assert all(expert in selected for expert in named)
    layer, expert = named[0]
    prefix = f"model.layers.{layer}.mlp.experts.{expert}."
    assert found["experts"][0]["tensors"] == [f"{prefix}{n}_proj.weight" for n in ("down", "gate", "up")]
    assert (found["others"], found["converted"]) == ([], False)

    code, printed, _ = command("diff", "demo", out, "--delta", variant)
    assert code == 0
    assert printed.splitlines()[-1].endswith(f"is demo with the delta of {variant}, to the last bit")


def test_the_lines_for_people(variant, selected, command, tmp_path):
    _, printed, _ = command("apply", "demo", variant, tmp_path / "out", "--dry-run")
    replaced, left_out = printed.splitlines()
    assert replaced == f"{len(selected)} experts of demo would be replaced; nothing was written"
    assert left_out.startswith("left out README.md: ")
    _, printed, _ = command("apply", "demo", variant, tmp_path / "out")
    assert f"out: {len(selected)} experts of demo replaced, " in printed
    _, printed, _ = command("diff", "demo", tmp_path / "out")
    assert printed.startswith("layer ")
    assert printed.endswith("and 0 other tensors differ; 422 compared\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("apply", "demo", "{run}", "{tmp}/out"), "is a run: name one of its variants"),
        (("apply", "demo", "{run}/variants/base", "{tmp}/out"), "holds no delta.safetensors"),
        (("apply", "{tmp}/no", "{delta}", "{tmp}/out"), "no model at"),
        (("apply", "{delta}/model", "{delta}", "{tmp}/out"), "does not belong to 'model'"),
        (("diff", "demo", "demo", "--delta", "{delta}"), "holds other values than the delta"),
        (("diff", "demo", "{tmp}/no"), "no model at"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(small_run, variant, command, tmp_path, arguments, message):
    places = {"run": small_run, "delta": variant, "tmp": tmp_path}
    code, _, printed = command(*(argument.format(**places) for argument in arguments))
    assert code == 2
    (line,) = [line for line in printed.splitlines() if line.startswith("harness: ")]
    assert message in line
    assert list(tmp_path.iterdir()) == []
