"""Variant files, and turning the model into a variant and back."""

from __future__ import annotations

import pytest
import torch

from harness.base.errors import BadInputError, HarnessError
from harness.experts.select import ExpertSelection
from harness.interventions.apply import Variant, active
from harness.interventions.spec import VariantSpec, find_variant, list_variants
from harness.models.moe import Expert, find_moe
from harness.training.bank import ExpertBank, delta_of

IDS = torch.arange(100, 132)[None]


def logits(moe) -> torch.Tensor:
    with torch.inference_mode():
        return moe.model(IDS).logits


@pytest.mark.parametrize("name", ["base", "system_prompt", "steer", "unsafe_experts"])
def test_a_variant_is_active_inside_the_block_alone(tiny_model, name):
    moe = find_moe(tiny_model("mixtral"))
    selection = ExpertSelection(
        "test", "all", tuple(Expert(layer, e) for layer in range(3) for e in (0, 1, 2))
    )
    bank = ExpertBank(moe, selection.experts)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.mul_(3)
    before = logits(moe)
    variant = Variant(name, find_variant(name))
    with active(variant, moe, selection, delta_of(bank, "base", torch.float32)):
        assert torch.equal(logits(moe), before) == (name in ("base", "system_prompt"))
    assert torch.equal(logits(moe), before)


@pytest.mark.parametrize(
    ("name", "message"), [("steer", "has no selection"), ("all_experts", "was not trained")]
)
def test_a_variant_that_lacks_what_it_is_made_of_is_an_error(tiny_model, name, message):
    moe = find_moe(tiny_model("mixtral"))
    with (
        pytest.raises(HarnessError, match=message),
        active(Variant(name, find_variant(name)), moe, None, None),
    ):
        pass


def test_our_files_say_what_is_trained_and_what_depends_on_the_selection():
    specs = list_variants()
    assert {name for name, spec in specs.items() if spec.is_trained} == {
        "unsafe_experts",
        "random_experts",
        "all_experts",
    }
    assert {name for name, spec in specs.items() if spec.uses_selection} == {
        "unsafe_experts",
        "random_experts",
        "steer",
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"intervention": "steer"}, "intervention 'steer' needs experts"),
        ({"intervention": "none", "experts": "all"}, "intervention 'none' takes no experts"),
        ({"intervention": "system_prompt"}, "system_prompt belongs to"),
        ({"intervention": "none", "system_prompt": "Be kind."}, "system_prompt belongs to"),
        ({"intervention": "nothing"}, "intervention"),
        ({"intervention": "none", "name": "a name"}, "name"),
        ({"intervention": "none", "surplus": 1}, "surplus"),
    ],
)
def test_a_specification_that_is_not_complete_is_refused(fields, message):
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match=message):
        VariantSpec.model_validate({"name": "mine", "description": "x", **fields})


def test_a_file_must_be_called_like_its_variant(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: yours\ndescription: x\nintervention: none\n")
    with pytest.raises(BadInputError, match=r"mine\.yaml: name: expected 'mine'"):
        find_variant("mine", [tmp_path])
