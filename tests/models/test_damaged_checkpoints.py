"""Whatever is wrong with a checkpoint's weights is one line with exit code 2, in every step, before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.base.errors import BadInputError
from harness.cli.main import main
from harness.models.load import DEMO_FOLDER, load_model, resolve_model

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Damage = Callable[[Path], None]


def without(*names: str) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        for name in names:
            del tensors[name]
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def reshaped(name: str, *shape: int) -> Damage:
    def damage(folder: Path) -> None:
        save_file(
            load_file(folder / WEIGHTS) | {name: torch.zeros(shape)},
            folder / WEIGHTS,
            metadata={"format": "pt"},
        )

    return damage


def truncated(keep: Callable[[int, int], int]) -> Damage:
    """Keep the first bytes; their number from where the header ends and the file's size."""

    def damage(folder: Path) -> None:
        whole = (folder / WEIGHTS).read_bytes()
        end = 8 + int.from_bytes(whole[:8], "little")
        (folder / WEIGHTS).write_bytes(whole[: keep(end, len(whole))])

    return damage


def with_header(text: str) -> Damage:
    def damage(folder: Path) -> None:
        header = text.encode()
        (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)

    return damage


def with_index(text: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / INDEX).write_text(text)

    return damage


def untied_without_head(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))


def only_a_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def one_shard_missing(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    shards = dict.fromkeys(tensors, "model-00001-of-00002.safetensors")
    shards["model.norm.weight"] = "model-00002-of-00002.safetensors"
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shards}))


def with_file(name: str, text: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_text(text)

    return damage


def configured(name: str = "config.json", **values: object) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))

    return damage


def with_more(**tensors: torch.Tensor) -> Damage:
    """Add tensors; two underscores are a dot."""

    def damage(folder: Path) -> None:
        more = {name.replace("__", "."): value for name, value in tensors.items()}
        save_file(load_file(folder / WEIGHTS) | more, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def only_tekken(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "tekken.json")


def an_index_outside(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "outside.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": "../outside.safetensors"}}))


MLP = "model.layers.1.mlp"
NOT_ITS_CONFIG = "are not those of its config.json: "
DAMAGES: dict[str, tuple[Damage, str]] = {
    "no embedding": (without("model.embed_tokens.weight"), NOT_ITS_CONFIG),
    "no router": (without(f"{MLP}.gate.weight"), f"{NOT_ITS_CONFIG}{MLP}.gate.weight is missing"),
    "no norm": (without("model.layers.3.input_layernorm.weight"), "input_layernorm.weight is missing"),
    "no attention": (without("model.layers.0.self_attn.q_proj.weight"), "q_proj.weight is missing"),
    "no head": (untied_without_head, "lm_head.weight is missing"),
    "no down of an expert": (without(f"{MLP}.experts.5.down_proj.weight"), NOT_ITS_CONFIG),
    "no gate of an expert": (
        without(f"{MLP}.experts.5.gate_proj.weight"),
        f"{NOT_ITS_CONFIG}{MLP}.experts.5.gate_proj.weight is missing",
    ),
    "no last expert": (
        without(*(f"{MLP}.experts.31.{name}_proj.weight" for name in ("gate", "up", "down"))),
        NOT_ITS_CONFIG,
    ),
    "no expert of a layer": (
        without(
            *(f"{MLP}.experts.{e}.{name}_proj.weight" for e in range(32) for name in ("gate", "up", "down"))
        ),
        f"{MLP}.experts.down_proj is missing",
    ),
    "a router of more experts": (reshaped(f"{MLP}.gate.weight", 33, 128), "is [33, 128], expected [32, 128]"),
    "an expert of another size": (
        reshaped(f"{MLP}.experts.5.down_proj.weight", 128, 32),
        f"{MLP}.experts.5.down_proj.weight is [128, 32], those of other experts [128, 64]",
    ),
    "a narrower norm": (reshaped("model.norm.weight", 5), "model.norm.weight is [5], expected [128]"),
    "an empty file": (truncated(lambda header, size: 0), "not a whole safetensors file"),
    "within the length": (truncated(lambda header, size: 5), "not a whole safetensors file"),
    "no header": (truncated(lambda header, size: 8), "not a whole safetensors file"),
    "within the header": (truncated(lambda header, size: header // 2), "not a whole safetensors file"),
    "before the header's end": (truncated(lambda header, size: header - 1), "not a whole safetensors file"),
    "header alone": (truncated(lambda header, size: header), "not a whole safetensors file"),
    "first byte of data": (truncated(lambda header, size: header + 1), "not a whole safetensors file"),
    "half": (truncated(lambda header, size: size // 2), "not a whole safetensors file"),
    "nine tenths": (truncated(lambda header, size: size * 9 // 10), "not a whole safetensors file"),
    "all but a byte": (truncated(lambda header, size: size - 1), "not a whole safetensors file"),
    "no JSON": (with_header("weights"), "not a whole safetensors file"),
    "a list": (with_header("[]"), "not a whole safetensors file"),
    "lists": (with_header('{"a": []}'), "not a whole safetensors file"),
    "deep nesting": (with_header("[" * 100_000), "not a whole safetensors file"),
    "no tensors": (with_header("{}"), NOT_ITS_CONFIG),
    "a size that is no shape's": (
        with_header('{"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 0]}}'),
        "its header gives 0 bytes to BF16 [4]",
    ),
    "a shard is missing": (one_shard_missing, "model-00002-of-00002.safetensors is missing"),
    "an index of no files": (with_index("{}"), "no index of safetensors files"),
    "an index that is a list": (with_index("[]"), "expected a mapping of keys to values, found a list"),
    "an index of lists": (with_index('{"weight_map": {"a": ["b"]}}'), "no index of safetensors files"),
    "a nested index": (with_index("[" * 100_000), "not valid JSON: nested too deeply"),
    "only a pickle": (only_a_pickle, "as a pickle only (pytorch_model.bin), which is never read: convert it"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "no safetensors weights"),
}
NESTED = "[" * 100_000
OBJECTS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "added_tokens.json",
)
DAMAGES |= {
    "fewer layers than the files": (
        configured(num_hidden_layers=3),
        "model.layers.3.input_layernorm.weight is there, expected 3 layers",
    ),
    "more layers than the files": (configured(num_hidden_layers=5), "model.layers.4."),
    "fewer experts than the files": (
        configured(num_local_experts=16),
        "is [32, 128, 64], expected [16, 128, 64]",
    ),
    "more experts than the files": (
        configured(num_local_experts=64),
        "is [32, 128, 64], expected [64, 128, 64]",
    ),
    "a bias that the model lacks": (
        with_more(model__layers__2__self_attn__q_proj__bias=torch.zeros(128)),
        "model.layers.2.self_attn.q_proj.bias is there, expected no such tensor",
    ),
    "an adapter that was not merged": (
        with_more(model__layers__2__self_attn__q_proj__lora_A__weight=torch.zeros(4, 128)),
        "lora_A.weight is there, expected no such tensor",
    ),
    "shared experts that the model lacks": (
        with_more(model__layers__2__mlp__shared_experts__up_proj__weight=torch.zeros(4, 128)),
        "shared_experts.up_proj.weight is there, expected no such tensor",
    ),
    "a norm with a bias": (with_more(model__norm__bias=torch.zeros(128)), "model.norm.bias is there"),
    "a code without its quantization": (
        with_more(model__norm__weight=torch.ones(128).to(torch.float8_e4m3fn)),
        "model.norm.weight is stored as F8_E4M3, expected a quantization_config",
    ),
    "no expert per token": (configured(num_experts_per_tok=0), "a token uses 0 experts: expected 1 to 32"),
    "more experts per token than there are": (
        configured(num_experts_per_tok=33),
        "a token uses 33 experts: expected 1 to 32",
    ),
    "an end that is no token": (
        configured("generation_config.json", eos_token_id=99_999),
        "eos_token_id has 99999",
    ),
    "a dtype that nobody knows": (
        with_header('{"a": {"dtype": "B7", "shape": [1], "data_offsets": [0, 0]}}'),
        "its header names the dtype B7",
    ),
    "tensors over one another": (
        with_header(
            '{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]},'
            ' "b": {"dtype": "U8", "shape": [1], "data_offsets": [-1, 0]}}'
        ),
        "not a whole safetensors file",
    ),
    "an index of files elsewhere": (
        an_index_outside,
        "names ../outside.safetensors: expected files of its folder",
    ),
    "a text_config that is a list": (
        configured(text_config=[]),
        "text_config: expected a mapping of keys to values",
    ),
    "a quantization_config that is a list": (
        configured(quantization_config=[1]),
        "quantization_config: expected a",
    ),
    "a tokenizer for another program": (only_tekken, "as tekken.json alone, which only mistral-common reads"),
    **{f"{name} a list": (with_file(name, "[]"), f"{name}: expected a mapping of keys") for name in OBJECTS},
    **{
        f"{name} nested": (with_file(name, NESTED), f"{name}: not valid JSON: nested too") for name in OBJECTS
    },
    **{f"{name} empty": (with_file(name, ""), f"{name}: not valid JSON: line 1") for name in OBJECTS},
}
STEPS = ("run", "capture", "select", "train", "evaluate", "dry run")


def arguments(checkpoint: Path) -> list[str]:
    return ["--model", str(checkpoint), "--tasks", "demo_harmful,demo_benign", "--limit", "12"]


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return Path(shutil.copytree(DEMO_FOLDER, tmp_path / "copy"))


@pytest.fixture
def refused(capsys, tmp_path):
    def step(name: str, checkpoint: Path) -> str:
        command = ["run", "--dry-run"] if name == "dry run" else [name]
        capsys.readouterr()
        assert main([*command, *arguments(checkpoint), "--output", str(tmp_path / "run")]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("harness: ")
        assert captured.err.count("\n") == 1
        assert not (tmp_path / "run").exists()
        return captured.err

    return step


def test_the_copy_itself_would_run(checkpoint):
    assert main(["run", "--dry-run", *arguments(checkpoint)]) == 0


@pytest.mark.parametrize("kind", DAMAGES)
def test_each_damage_is_one_line_before_any_work(refused, checkpoint, kind):
    damage, expected = DAMAGES[kind]
    damage(checkpoint)
    assert expected in refused("run", checkpoint)


@pytest.mark.parametrize(
    "kind", ["no router", "half", "only a pickle", "fewer layers than the files", "no expert per token"]
)
@pytest.mark.parametrize("step", STEPS)
def test_every_step_refuses(refused, checkpoint, step, kind):
    damage, expected = DAMAGES[kind]
    damage(checkpoint)
    assert expected in refused(step, checkpoint)


@pytest.mark.parametrize("kind", DAMAGES)
def test_whoever_loads_a_model_without_a_run_is_told_the_same(checkpoint, kind):
    damage, _ = DAMAGES[kind]
    damage(checkpoint)
    with pytest.raises(BadInputError) as caught:
        load_model(resolve_model(str(checkpoint)), device="cpu")
    assert "\n" not in str(caught.value)


def test_what_a_checkpoint_may_have_besides(checkpoint):
    """Tensors of multi-token prediction, towers for images, and what older versions saved."""
    more = {
        "model.layers.4.eh_proj.weight": torch.zeros(4),
        "model.layers.4.mlp.experts.0.up_proj.weight": torch.zeros(4, 4),
        "model.mtp.layers.0.self_attn.q_proj.weight": torch.zeros(4, 4),
        "mtp.norm.weight": torch.zeros(4),
        "vision_tower.encoder.layers.7.mlp.fc1.bias": torch.zeros(4),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(16),
    }
    save_file(load_file(checkpoint / WEIGHTS) | more, checkpoint / WEIGHTS, metadata={"format": "pt"})
    assert main(["models", "inspect", str(checkpoint)]) == 0
    load_model(resolve_model(str(checkpoint)), device="cpu")
