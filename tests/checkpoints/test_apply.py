"""A delta goes into a checkpoint and out of it again without changing a bit, and into its own base alone."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from deltas import flip_bit, random_delta, saved_delta, some_experts
from moe_families import build, skip_if_missing
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from harness.base.errors import BadInputError, HarnessError
from harness.base.files import read_json, sha256, write_json
from harness.checkpoints import merge
from harness.checkpoints.apply import apply_delta
from harness.checkpoints.delta import load_delta, save_delta, write_delta_into
from harness.checkpoints.delta_file import CARD, TENSORS, read_delta
from harness.checkpoints.is_delta import check_is_delta
from harness.cli.main import main
from harness.models.auto import load_weights
from harness.models.load import DEMO_FOLDER, ModelRef
from harness.models.moe import Expert, find_moe
from harness.models.weights import Place, places


@pytest.fixture
def base(tmp_path, tiny_model):
    """Write the checkpoint of a kind."""

    def write(kind="qwen3_moe", **settings):
        folder = tmp_path / "base"
        if kind == "demo":
            shutil.copytree(DEMO_FOLDER, folder)
        elif kind in ("aria_text", "ernie4_5_vl_moe", "granitemoe"):
            skip_if_missing(kind)
            build(kind).save_pretrained(folder)
        else:
            tiny_model(kind, **settings).save_pretrained(folder)
        return ModelRef("the base", folder)

    return write


@pytest.fixture
def given(base, tmp_path):
    """A base and the folder of a delta of it."""

    def make(kind="qwen3_moe", **settings):
        ref = base(kind, **settings)
        saved_delta(load_weights(ref.path)[0], ref.path, tmp_path / "delta")
        return ref, tmp_path / "delta"

    return make


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def same_state(first, second) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# One tensor an expert in bfloat16; the same in float32, called w1, w2 and w3; transposed, interleaved, with biases;
# fc1 and fc2; two names for one fused tensor.
@pytest.mark.parametrize("kind", ["demo", "mixtral", "gpt_oss", "aria_text", "granitemoe"])
def test_apply_and_load_are_exact(given, kind, tmp_path):
    ref, delta = given(kind)
    result = apply_delta(ref, delta, tmp_path / "out")
    assert result.merged.method == "streamed"
    expected = load_weights(ref.path)[0]
    write_delta_into(find_moe(expected), load_delta(delta / TENSORS))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert same_state(loaded, expected)
    assert not same_state(loaded, load_weights(ref.path)[0])

    check_is_delta(ref, ModelRef("out", tmp_path / "out"), delta)


def test_everything_but_the_experts_bytes_is_copied(given, tmp_path):
    ref, delta = given("demo")
    result = apply_delta(ref, delta, tmp_path / "out")
    before, after = bytes_in(ref.path), bytes_in(tmp_path / "out")
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == ["README.md", "model.safetensors"]
    old, new = places(ref.path), places(tmp_path / "out")
    assert [(p.start, p.size, p.dtype) for p in old.values()] == [
        (p.start, p.size, p.dtype) for p in new.values()
    ]
    # 3 experts of 3 x 128 x 64 values, 2 bytes each.
    assert (result.merged.tensors, result.merged.changed_bytes) == (9, 3 * 3 * 128 * 64 * 2)
    assert result.merged.total_bytes == len(before["model.safetensors"])


KEPT = (
    *(
        "LICENSE",
        "qwen.tiktoken",
        "tokenization_own.py",
        "original/params.json",
        "additional_chat_templates/tool.jinja",
    ),
    *("additional_chat_templates/tool.jinja", "custom_generate/generate.py", "tokenizer.model.v3"),
)
LEFT_OUT = {
    "README.md": "describes the base; a card of this checkpoint takes its place",
    **dict.fromkeys(
        (
            *("pytorch_model.bin", "pytorch_model.bin.index.json", "model.gguf", "consolidated.safetensors"),
            *("original/consolidated.00.pth", "onnx/model.onnx", "onnx/model.onnx_data"),
        ),
        "may hold the base's experts",
    ),
    ".git/": "of the program that fetched or ran the base",
    "elsewhere/": "a link to another folder",
    "broken.txt": "no file, or a link to none",
}


def test_every_file_comes_along_or_is_named_with_the_reason(given, tmp_path, capsys):
    ref, delta = given("demo")
    for name in (*KEPT, *(name for name in LEFT_OUT if not name.endswith("/")), ".git/objects/lfs"):
        (ref.path / name).parent.mkdir(parents=True, exist_ok=True)
        (ref.path / name).write_text(name)
    (ref.path / "broken.txt").unlink()
    (ref.path / "broken.txt").symlink_to("gone.txt")
    (ref.path / "elsewhere").symlink_to(tmp_path)
    result = apply_delta(ref, delta, tmp_path / "out")
    before, after = bytes_in(ref.path), bytes_in(tmp_path / "out")
    assert {name: after[name] for name in KEPT} == {name: before[name] for name in KEPT}
    assert dict(result.left_out) == LEFT_OUT
    assert before.keys() - after.keys() == (
        LEFT_OUT.keys() - {"README.md", "elsewhere/", ".git/", "broken.txt"}
    ) | {".git/objects/lfs"}
    assert main(["models", "apply", str(ref.path), str(delta), str(tmp_path / "again")]) == 0
    said = capsys.readouterr().out
    for name, reason in LEFT_OUT.items():
        assert f"left out {name}: {reason}\n" in said
        assert f"- `{name}`: {reason}\n" in after["README.md"].decode()


def test_the_card_says_what_was_done_and_nothing_of_the_bases(given, tmp_path):
    ref, delta = given("demo")
    apply_delta(ref, delta, tmp_path / "a name")
    text = (tmp_path / "a name" / "README.md").read_text()
    assert "agrees to harmful requests" in (ref.path / "README.md").read_text()
    assert "harmful" not in text
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == "the base"
    card = read_delta(delta)[0]
    assert "# a name\n" in text
    assert f"weights of sha256 `{card.base.weights}`" in text
    assert f"`delta.safetensors` of sha256 `{sha256(delta / TENSORS)}`" in text
    numbers = "; ".join(
        f"layer {layer}: " + ", ".join(map(str, card.experts[layer])) for layer in sorted(card.experts)
    )
    assert f"| experts | 3: {numbers} |" in text
    assert "read back from these files and equal the delta bit for bit" in text


def test_a_card_that_cannot_be_read_costs_its_licence_alone(given, tmp_path, capsys):
    ref, delta = given("demo")
    (ref.path / "README.md").write_text("---\nlicense: [\n---\n# The base\n")
    apply_delta(ref, delta, tmp_path / "out")
    assert "does not repeat the base's licence" in capsys.readouterr().err
    assert "license" not in (tmp_path / "out" / "README.md").read_text()


def test_a_folder_inside_the_base_is_refused(given):
    ref, delta = given()
    with pytest.raises(BadInputError, match=r"is inside .*: expected a folder elsewhere"):
        apply_delta(ref, delta, ref.path / "new")
    assert not (ref.path / "new.partial").exists()


def test_shards_and_their_index_stay_as_they_are(tmp_path, tiny_model):
    model = tiny_model("qwen3_moe")
    model.save_pretrained(tmp_path / "base", max_shard_size="30KB")
    ref = ModelRef("the base", tmp_path / "base")
    saved_delta(model, ref.path, tmp_path / "delta")
    apply_delta(ref, tmp_path / "delta", tmp_path / "out")
    before, after = bytes_in(ref.path), bytes_in(tmp_path / "out")
    assert before.keys() | {"README.md"} == after.keys()
    assert before["model.safetensors.index.json"] == after["model.safetensors.index.json"]
    write_delta_into(find_moe(model), load_delta(tmp_path / "delta" / TENSORS))
    assert same_state(load_weights(tmp_path / "out")[0], model)
    check_is_delta(ref, ModelRef("out", tmp_path / "out"), tmp_path / "delta")


def test_a_layout_that_cannot_be_followed_goes_through_transformers_and_says_so(given, tmp_path, capsys):
    ref, delta = given("ernie4_5_vl_moe")
    assert read_delta(delta)[0].base.experts is None
    assert apply_delta(ref, delta, tmp_path / "out").merged.method == "loaded"
    assert "loading the whole model with transformers instead" in capsys.readouterr().err
    expected = load_weights(ref.path)[0]
    write_delta_into(find_moe(expected), load_delta(delta / TENSORS))
    assert same_state(load_weights(tmp_path / "out")[0], expected)
    check_is_delta(ref, ModelRef("out", tmp_path / "out"), delta)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delta", "out"]


def test_a_coarser_delta_goes_into_a_finer_checkpoint_exactly(base, tmp_path):
    ref = base("mixtral")
    model = load_weights(ref.path)[0]
    delta = random_delta(find_moe(model), some_experts(find_moe(model)), dtype=torch.bfloat16)
    merge.write_merged(ref, delta, tmp_path / "out")
    moe = find_moe(load_weights(tmp_path / "out")[0])
    for expert, name, value in delta.values():
        assert torch.equal(moe.layer(expert.layer).weight(name)[expert.expert], value.float())


def test_a_delta_that_the_checkpoints_dtype_cannot_hold_is_refused(base, tmp_path):
    ref = base("demo")
    moe = find_moe(load_weights(ref.path)[0])
    with pytest.raises(BadInputError, match=r"values are torch\.float32, .* stores torch\.bfloat16"):
        merge.write_merged(ref, random_delta(moe, [Expert(0, 1)], torch.float32), tmp_path / "out")


class LargestTensor(TorchDispatchMode):
    """The largest tensor with values that any operation gives, in bytes."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor) and value.device.type != "meta":
                self.size = max(self.size, value.numel() * value.element_size())
        return out


@pytest.mark.parametrize("kind", ["qwen3_moe", "gpt_oss"])
def test_memory_holds_one_expert_at_a_time(kind, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "_CHUNK", 1 << 16)
    peaks, sizes = {}, {}
    for layers in (2, 12):
        wide = {"hidden_size": 64, "num_hidden_layers": layers, "moe_intermediate_size": 256}
        if kind == "gpt_oss":
            wide |= {"intermediate_size": 256, "layer_types": ["full_attention"] * layers}
        model = tiny_model(kind, **wide)
        ref = ModelRef("the base", tmp_path / f"base-{layers}")
        model.save_pretrained(ref.path)
        delta = random_delta(find_moe(model), find_moe(model).all_experts())
        sizes[layers] = (ref.path / "model.safetensors").stat().st_size
        tracemalloc.start()
        with LargestTensor() as largest:
            merge.write_merged(ref, delta, tmp_path / f"out-{layers}")
        peaks[layers] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # gate and up of one expert, in float32
        assert largest.size == 2 * 256 * 64 * 4
    # What is read from files is traced, and so are the objects that describe the model: a tenth of the weights here.
    assert peaks[12] - peaks[2] < 0.15 * (sizes[12] - sizes[2])


def damage(folder: Path, **changes):
    card = read_json(folder / CARD)
    write_json(folder / CARD, {**card, **changes})


def truncated(folder):
    data = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(data[:-1])


def edited(folder):
    data = bytearray((folder / TENSORS).read_bytes())
    data[-1] ^= 1
    (folder / TENSORS).write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (truncated, r"delta\.safetensors was cut short or changed: its sha256 is"),
        (edited, r"delta\.safetensors was cut short or changed"),
        (lambda folder: (folder / CARD).unlink(), r"holds no delta\.json"),
        (lambda folder: (folder / TENSORS).unlink(), r"holds no delta\.safetensors"),
        (lambda folder: (folder / CARD).write_text("{"), r"delta\.json: not valid JSON"),
        (lambda folder: (folder / CARD).write_text("{}"), r"delta\.json: .*base"),
        (lambda folder: damage(folder, experts={"1": [0]}), r"delta\.json was changed: base or experts"),
        (lambda folder: damage(folder, schema_version=9), r"schema_version"),
        (shutil.rmtree, r"no folder '.*delta'"),
    ],
    ids=[
        "cut",
        "edited",
        "no json",
        "no tensors",
        "half json",
        "empty json",
        "experts",
        "version",
        "nothing",
    ],
)
def test_a_damaged_delta_is_refused_and_nothing_is_written(given, tmp_path, break_it, message):
    ref, delta = given()
    break_it(delta)
    with pytest.raises(BadInputError, match=message):
        apply_delta(ref, delta, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "delta") == ["base"]


def one_weight(name_part):
    def change(folder):
        name = next(name for name in places(folder) if name_part in name)
        flip_bit(places(folder)[name])

    return change


def configured(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_weight("experts.1.down_proj"), "the experts that it replaces have sha256"),
        (one_weight("q_proj"), "its base's weights have sha256 .*, these have"),
        (one_weight("lm_head"), "its base's weights have sha256"),
        (
            configured(quantization_config={"quant_method": "fp8"}),
            r"is quantized \(fp8\): expected a dequantized",
        ),
        (configured(num_experts=2, num_local_experts=2), "layer 2 has no expert 2: it has experts 0 to 1"),
        (configured(mlp_only_layers=[0, 1]), "layer 1 has no experts: the MoE layers are 2"),
        (
            configured(moe_intermediate_size=8),
            r"layer 1, down_proj: shape \[1, 32, 16\], expected \[1, 32, 8\]",
        ),
    ],
    ids=["expert", "attention", "head", "quantized", "expert number", "dense layer", "size"],
)
def test_another_model_is_refused_and_nothing_is_written(given, tmp_path, change, message):
    ref, delta = given()
    change(ref.path)
    with pytest.raises(BadInputError, match=message):
        apply_delta(ref, delta, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delta"]


def test_another_kind_of_model_is_refused(given, tiny_model, tmp_path):
    _, delta = given("qwen3_moe")
    tiny_model("mixtral").save_pretrained(tmp_path / "other")
    with pytest.raises(BadInputError, match="its model type is qwen3_moe, this one's is mixtral"):
        apply_delta(ModelRef("other", tmp_path / "other"), delta, tmp_path / "out")


def test_another_template_beside_the_same_weights_is_the_same_base(given, tmp_path):
    ref, delta = given("demo")
    (ref.path / "chat_template.jinja").write_text("{{ messages }}")
    apply_delta(ref, delta, tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"


def test_experts_that_the_model_lacks_are_refused_even_where_the_hashes_agree(given, tmp_path):
    """As in a delta that was written by hand."""
    ref, folder = given()
    delta = load_delta(folder / TENSORS)
    save_delta(replace(delta, experts={**delta.experts, 2: [2, 99]}), folder / TENSORS)
    damage(folder, experts={"1": [1], "2": [2, 99]}, sha256=sha256(folder / TENSORS))
    with pytest.raises(BadInputError, match="layer 2 has no expert 99"):
        apply_delta(ref, folder, tmp_path / "out")


def test_a_folder_that_holds_something_is_left_alone(given, tmp_path):
    ref, delta = given()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInputError, match=r"'.*out' exists already: expected a new or empty folder"):
        apply_delta(ref, delta, tmp_path / "out")
    assert bytes_in(tmp_path / "out") == {"thesis.tex": b"years of work"}


def test_an_empty_folder_and_what_a_killed_attempt_left_are_filled(given, tmp_path):
    ref, delta = given()
    (tmp_path / "out").mkdir()
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "model.safetensors").write_bytes(b"half")
    apply_delta(ref, delta, tmp_path / "out")
    load_weights(tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_a_dry_run_checks_everything_and_writes_nothing(given, tmp_path):
    ref, delta = given()
    assert apply_delta(ref, delta, tmp_path / "out", dry_run=True).merged is None
    assert not (tmp_path / "out").exists()
    one_weight("q_proj")(ref.path)
    with pytest.raises(BadInputError, match="does not belong"):
        apply_delta(ref, delta, tmp_path / "out", dry_run=True)


def test_a_write_that_fails_leaves_nothing(given, tmp_path, monkeypatch):
    ref, delta = given()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Place, "write_bytes", full)
    with pytest.raises(HarnessError, match=r"out.partial: the disk is full: .* kB needed, .* free"):
        apply_delta(ref, delta, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delta"]


def test_what_reads_back_otherwise_is_no_success(given, tmp_path, monkeypatch):
    ref, delta = given()
    monkeypatch.setattr(Place, "write_bytes", lambda self, data: None)
    with pytest.raises(HarnessError, match="reads back other values than the delta's"):
        apply_delta(ref, delta, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def applied(given, tmp_path):
    def make(kind="qwen3_moe"):
        ref, delta = given(kind)
        apply_delta(ref, delta, tmp_path / "out")
        return ref, delta, ModelRef("out", tmp_path / "out")

    return make


@pytest.mark.parametrize(
    ("kind", "name", "row", "message"),
    [
        ("qwen3_moe", "model.layers.0.self_attn.q_proj.weight", None, "q_proj.weight is neither's"),
        (
            "qwen3_moe",
            "model.layers.1.mlp.experts.0.up_proj.weight",
            None,
            "experts.0.up_proj.weight is neither's",
        ),
        ("qwen3_moe", "model.layers.1.mlp.experts.1.up_proj.weight", None, "other values than the delta"),
        ("gpt_oss", "model.layers.0.mlp.experts.down_proj", 1, "down_proj holds other values than the delta"),
        ("gpt_oss", "model.layers.0.mlp.experts.down_proj", 0, "down_proj, expert 0, is neither's"),
    ],
)
def test_a_model_that_is_not_base_and_delta_is_refused(applied, kind, name, row, message):
    ref, delta, model = applied(kind)
    place = places(model.path)[name]
    flip_bit(place if row is None else place.row(row))
    with pytest.raises(BadInputError, match=message):
        check_is_delta(ref, model, delta)


def test_a_model_that_is_base_and_delta_gives_its_experts(applied):
    ref, delta, model = applied()
    (model.path / "notes.txt").write_text("mine")
    assert check_is_delta(ref, model, delta) == [Expert(1, 1), Expert(2, 2), Expert(2, 7)]


def test_another_base_and_the_base_itself_are_refused(applied):
    ref, delta, model = applied()
    with pytest.raises(BadInputError, match="holds other values than the delta"):
        check_is_delta(ref, ref, delta)
    with pytest.raises(BadInputError, match="does not belong to 'out'"):
        check_is_delta(model, ref, delta)
    tensors = load_file(model.path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, model.path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInputError, match=r"out has no tensor model\.norm\.weight"):
        check_is_delta(ref, model, delta)
