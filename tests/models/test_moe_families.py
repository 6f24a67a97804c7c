"""The adapter finds the MoE layers of every family that transformers has, or says why it does not serve one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from moe_families import (
    EXPERTS,
    FAMILIES,
    build,
    config_of,
    padding_list,
    refused_table,
    served_table,
    skip_if_missing,
)
from transformers import CONFIG_MAPPING
from transformers.models.auto.configuration_auto import model_type_to_module_name

from harness.base.errors import BadInputError
from harness.models.auto import auto_class, outline
from harness.models.facts import inspect
from harness.models.moe import Expert, find_moe
from harness.models.unserved import refused, why_refused
from harness.training.bank import ExpertBank

MODELS = Path(transformers.__file__).parent / "models"


@pytest.fixture(params=FAMILIES, scope="module")
def family(request):
    skip_if_missing(request.param)
    return request.param


@pytest.fixture(scope="module")
def moe(family):
    """One family after another; the tests of a family share a model."""
    return find_moe(build(family))


def test_facts_are_those_written_down(family, moe):
    facts, written = inspect(moe), FAMILIES[family]
    tensors = facts["layout"].pop("tensors")
    assert facts == {
        "supported": True,
        "model_type": moe.model.config.model_type,
        "moe_layers": list(written.moe_layers),
        "experts_per_layer": EXPERTS,
        "experts_per_token": written.k,
        "shared_experts": written.shared,
        "layout": {
            "transposed": written.transposed,
            "gate": written.gate,
            "biases": written.biases,
            "normed": written.normed,
        },
        "routers": len(written.moe_layers) if written.router else 0,
        "quantization": None,
        "parameters": sum(parameter.numel() for parameter in moe.model.parameters()),
        "trainable_if_selected": sum(torch.Size(shape[1:]).numel() for shape in tensors.values()),
    }
    up = "up_proj" if written.gate == "none" else "gate_up_proj"
    biases = {f"{up}_bias", "down_proj_bias"} if written.biases else set()
    assert set(tensors) == {up, "down_proj", *biases}
    # Both matrices share the experts' inner size, on the side that the layout says.
    outer, inner = (1, 2) if written.transposed else (2, 1)
    assert tensors[up][inner] == tensors["down_proj"][outer] * (1 if written.gate == "none" else 2)
    assert tensors[up][outer] == tensors["down_proj"][inner]


def test_routers_give_one_logit_per_expert(moe):
    names = {module: name for name, module in moe.model.named_modules()}
    for layer in moe.layers:
        if layer.router is not None:
            assert layer.router.get_parameter("weight").shape[0] == EXPERTS
            assert names[layer.router].startswith(f"{layer.name.rpartition('.')[0]}.")


def test_selecting_an_expert_makes_what_inspect_says_trainable_and_nothing_else(moe):
    chosen = [Expert(layer.index, expert) for layer in moe.layers for expert in range(0, EXPERTS, 2)]
    bank = ExpertBank(moe, chosen)
    assert bank.size == len(chosen) * inspect(moe)["trainable_if_selected"]
    ids = torch.arange(10, 40).reshape(2, 15)
    with torch.no_grad():
        before = moe.model(input_ids=ids, use_cache=False).logits
    with bank.installed():
        logits = moe.model(input_ids=ids, use_cache=False).logits
        logits.float().square().mean().backward()
    torch.testing.assert_close(logits.detach(), before, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad.abs().max() > 0 for parameter in bank.parameters())
    assert all(parameter.grad is None for parameter in moe.model.parameters())


def test_every_decorated_family_of_transformers_is_built_here_or_refused():
    decorated = {
        path.parent.name
        for path in MODELS.glob("*/modeling_*.py")
        if re.search(r"^@use_experts_implementation", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(decorated) >= 40
    assert decorated - {model_type_to_module_name(name) for name in [*FAMILIES, *refused()]} == set()


def test_every_other_experts_class_of_a_language_model_is_refused_by_name():
    undecorated = {
        path.parent.name
        for path in MODELS.glob("*/modeling_*.py")
        if re.search(r"^class \w+(?:Experts|MoE)\(", text := path.read_text("utf-8"), re.MULTILINE)
        and "use_experts_implementation" not in text
        and re.search(r"^class \w+ForC(?:ausalLM|onditionalGeneration)\(", text, re.MULTILINE)
    }
    assert undecorated
    assert undecorated - {model_type_to_module_name(name) for name in [*FAMILIES, *refused()]} == set()


@pytest.mark.parametrize("model_type", refused())
def test_what_is_not_served_is_refused_by_name_with_the_reason(model_type, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(BadInputError) as error:
        outline(tmp_path)
    assert str(error.value) == f"model type '{model_type}' {refused()[model_type]}"


def test_a_model_in_memory_is_refused_in_the_same_words():
    config = CONFIG_MAPPING["llama4_text"](
        vocab_size=1500, hidden_size=16, intermediate_size=16, intermediate_size_mlp=16, num_hidden_layers=1
    )
    with torch.device("meta"):
        model = auto_class(config).from_config(config)
    with pytest.raises(BadInputError, match="'llama4_text' runs every expert on every token"):
        find_moe(model)


def test_the_text_part_of_a_configuration_is_looked_at_too():
    outer = {"model_type": "anything", "text_config": {"model_type": "zaya"}}
    assert why_refused(outer) == refused()["zaya"]
    assert why_refused({"model_type": "qwen3_moe"}) is None


def test_an_encoder_decoder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(BadInputError, match="model type 't5' is an encoder-decoder"):
        outline(tmp_path)


def test_experts_for_images_are_left_out():
    moe = find_moe(build("ernie4_5_vl_moe"))
    names = [name for name, _ in moe.model.named_modules() if name.endswith("experts") and "layers.1" in name]
    text, image = "model.language_model.layers.1.mlp.text_moe.experts", "vision_moe.experts"
    assert text in names
    assert any(name.endswith(image) for name in names)
    assert moe.layers[0].name == text
    assert not any(layer.name.endswith(image) for layer in moe.layers)


def test_layers_that_differ_in_k_are_refused():
    config = config_of("hunyuan_v1_moe")
    config.moe_topk = [2, 2, 3]
    with pytest.raises(
        BadInputError, match=r"layers of \[2, 3\] experts per token: expected the same number"
    ):
        find_moe(auto_class(config).from_config(config))


def test_layers_that_differ_in_experts_are_refused():
    model = build("mixtral")
    layer = model.model.layers[1].mlp.experts
    layer.num_experts = 4
    with pytest.raises(BadInputError, match=r"layers of \[4, 8\] experts: expected the same number"):
        find_moe(model)


def test_a_second_experts_module_in_a_layer_is_refused():
    model = build("mixtral")
    model.model.layers[1].other = torch.nn.ModuleDict({"experts": model.model.layers[0].mlp.experts})
    # The first name of a module that two layers share is the one that counts, so move it.
    del model.model.layers[0].mlp.experts
    with pytest.raises(BadInputError, match="several experts modules in layer 1: expected one per layer"):
        find_moe(model)


@pytest.mark.parametrize(
    ("mark", "table"), [("served", served_table), ("refused", refused_table), ("padding", padding_list)]
)
def test_the_page_on_architectures_says_the_same(mark, table):
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "architectures.md").read_text(
        "utf-8"
    )
    assert page.split(f"<!-- {mark} -->\n")[1].split(f"\n<!-- /{mark} -->")[0] == table()
    assert f"Each of these {len(FAMILIES)} model types" in page
