"""Variant files, and turning the model into a variant and back."""

from __future__ import annotations

import pytest
import torch

from harness.base.errors import BadInputError, HarnessError
from harness.experts.select import ExpertSelection
from harness.interventions.base import Prepared, Variant
from harness.interventions.spec import find_variant, list_variants
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
    delta = delta_of(bank, "base", torch.float32)
    made = Prepared(Variant(name, find_variant(name)), selection, delta)
    with made.intervention.in_memory(moe, made):
        assert torch.equal(logits(moe), before) == (name in ("base", "system_prompt"))
    assert torch.equal(logits(moe), before)


@pytest.mark.parametrize(
    ("name", "message"), [("steer", "has no selection"), ("all_experts", "was not trained")]
)
def test_a_variant_that_lacks_what_it_is_made_of_is_an_error(tiny_model, name, message):
    moe = find_moe(tiny_model("mixtral"))
    made = Prepared(Variant(name, find_variant(name)))
    with pytest.raises(HarnessError, match=message), made.intervention.in_memory(moe, made):
        pass


def test_our_files_say_what_is_trained_and_what_depends_on_the_selection():
    specs = list_variants()
    assert {name for name, spec in specs.items() if spec.needs == "training"} == {
        "unsafe_experts",
        "random_experts",
        "popular_experts",
        "all_experts",
        *("esft", "guide", "lora_all", "safex"),
    }
    assert {name for name, spec in specs.items() if spec.uses_selection} == {
        "unsafe_experts",
        "random_experts",
        "popular_experts",
        "prune",
        "steer",
        *("esft", "guide", "safex", "steermoe"),
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("intervention: steer", "experts: missing"),
        (
            "intervention: steer\nexperts: some",
            "experts: expected 'selected', 'random', 'most_used' or 'all'",
        ),
        ("intervention: none\nexperts: all", "experts: unknown key"),
        ("intervention: system_prompt", "system_prompt: missing"),
        ("intervention: system_prompt\nsystem_promt: Be kind.", "did you mean 'system_prompt'"),
        ("intervention: none\nsystem_prompt: Be kind.", "system_prompt: unknown key"),
        ("intervention: steeer", "unknown intervention kind 'steeer', did you mean 'steer'"),
        ("intervention: nothing", "unknown intervention kind .nothing.*known: .*none, .*train_experts"),
        ("intervention: 3", "intervention: expected a valid string, found 3"),
        ("experts: all", "intervention: missing"),
        ("intervention: none\nsurplus: 1", "surplus: unknown key"),
    ],
)
def test_a_specification_that_is_not_right_is_refused_in_one_line(tmp_path, fields, message):
    file = tmp_path / "baselines/mine.yaml"
    file.parent.mkdir()
    file.write_text(f"name: mine\ndescription: x\n{fields}\n")
    with pytest.raises(BadInputError, match=message) as refusal:
        find_variant("mine", [tmp_path])
    assert str(refusal.value).startswith(f"{file}: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"experts": "selected"}, {"experts": "all"}),
        ({"draw": 0}, {"draw": 1}),
        ({"selection": [(0, 1)]}, {"selection": [(0, 2)]}),
        ({"training": "one"}, {"training": "another"}),
    ],
)
def test_whatever_decides_a_variants_answers_is_in_its_fingerprint(first, second):
    def made(experts="selected", draw=0, selection=(), training=None) -> Prepared:
        spec = find_variant("unsafe_experts").model_copy(update={"experts": experts})
        chosen = ExpertSelection("test", "all", tuple(Expert(*expert) for expert in selection))
        return Prepared(Variant("mine", spec, draw), chosen, training=training)

    assert made(**first).fingerprint == made(**first).fingerprint
    assert made(**first).fingerprint != made(**second).fingerprint


def test_what_only_people_read_is_in_no_fingerprint():
    spec = find_variant("system_prompt")
    other = spec.model_copy(update={"name": "mine", "description": "Mine.", "citation": "me"})
    assert Prepared(Variant("mine", spec)).fingerprint == Prepared(Variant("mine", other)).fingerprint


def test_a_record_holds_the_whole_specification():
    prompt = find_variant("system_prompt")
    assert Variant("system_prompt", prompt).record()["system_prompt"] == prompt.system_prompt
    drawn = Variant("random_experts_3", find_variant("random_experts"), draw=2).record()
    assert (drawn["intervention"], drawn["experts"], drawn["draw"]) == ("train_experts", "random", 2)


def test_a_file_must_be_called_like_its_variant(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: yours\ndescription: x\nintervention: none\n")
    with pytest.raises(BadInputError, match=r"mine\.yaml: name: expected 'mine'"):
        find_variant("mine", [tmp_path])
