"""Whether a checkpoint's own Python code runs is said once, where the model is named."""

from __future__ import annotations

import json

import pytest

from harness.models.load import load_model, outline_model, resolve_model
from harness.models.stored import StoredExperts

OWN = """
from transformers import MixtralConfig, MixtralForCausalLM

class OwnConfig(MixtralConfig):
    pass

class OwnModel(MixtralForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def folder(tiny_model, saved_model, tmp_path, monkeypatch):
    # transformers copies the code that it runs to its cache.
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = saved_model(tiny_model("mixtral"))
    (folder / "own.py").write_text(OWN)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("trusted", "kind"), [(True, "OwnModel"), (False, "MixtralForCausalLM")])
def test_a_reference_says_for_every_use_whether_the_checkpoints_code_runs(folder, trusted, kind):
    ref = resolve_model(str(folder), trust_remote_code=trusted)
    assert ref.trust_remote_code is trusted
    for moe in (outline_model(ref), StoredExperts(ref).moe, load_model(ref, device="cpu").moe):
        assert type(moe.model).__name__ == kind


def test_no_code_runs_unless_asked_for(folder):
    assert not resolve_model(str(folder)).trust_remote_code
    assert not resolve_model("demo").trust_remote_code
