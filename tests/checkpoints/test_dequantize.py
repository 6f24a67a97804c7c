"""`harness models dequantize`, and quantised checkpoints in runs: packed as they are published."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packed import INDEX, SINGLE, pack_fp8, pack_mxfp4
from safetensors.torch import load_file, save_file

from harness.base.files import read_json, read_jsonl
from harness.checkpoints import dequantize as module
from harness.checkpoints.same_logits import compare_logits
from harness.cli.main import main
from harness.models.codes import from_fp8
from harness.models.dequantized import plain_tensors
from harness.models.load import ModelRef, load_model
from harness.models.quantized import Quantization
from harness.models.weights import bytes_of, places

PACKED: dict[str, tuple[str, Callable[[Path], Path], dict[str, Any]]] = {
    "mxfp4": ("gpt_oss", pack_mxfp4, {}),
    "fp8": ("deepseek_v3", pack_fp8, {}),
    "fp8 small blocks": ("qwen3_moe", lambda folder: pack_fp8(folder, (16, 8)), {}),
    # Blocks that end early: 200 is 128 and 72, of which transformers makes 100 and 100.
    "fp8 uneven": ("qwen3_moe", pack_fp8, {"intermediate_size": 200}),
    # 5 rows of scales for 580: an error in transformers, as with DeepSeek-V3's 576.
    "fp8 edge": ("qwen3_moe", pack_fp8, {"intermediate_size": 580}),
}
UNEVEN = ("fp8 uneven", "fp8 edge")
TASKS = ("--tasks", "demo_harmful,demo_benign", "--limit", "10", "--max-new-tokens", "6", "--top-k", "2")


@pytest.fixture
def packed(tiny_model, saved_model):
    """Write a tiny model in a published layout, with files beside the weights as hubs have them."""

    def pack(kind: str = "fp8", name: str = "packed") -> Path:
        family, packer, settings = PACKED[kind]
        folder = saved_model(tiny_model(family, **settings).bfloat16(), name)
        (folder / "README.md").write_text("A card.")
        (folder / "original").mkdir()
        (folder / "original" / "notes.bin").write_bytes(b"\0\1")
        return packer(folder)

    return pack


@pytest.fixture
def refused(capsys, tmp_path):
    """Call a command that is refused: exit code 2, one line, nothing written."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        before = sorted(tmp_path.iterdir())
        assert main(list(map(str, arguments))) == 2
        assert sorted(tmp_path.iterdir()) == before
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return str(error)

    return run


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a checkpoint; they end up in one file."""
    tensors = tensors_of(folder)
    change(tensors)
    for file in [*folder.glob("*.safetensors"), folder / INDEX]:
        file.unlink()
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def reconfigure(folder: Path, scheme: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(read_json(path) | {"quantization_config": scheme}))


@pytest.mark.parametrize("kind", list(PACKED))
def test_the_copy_is_a_plain_checkpoint_with_every_other_file(packed, tmp_path, capsys, kind):
    source, out = packed(kind), tmp_path / "plain"
    before = {file.name: file.read_bytes() for file in source.iterdir() if file.is_file()}
    assert main(["models", "dequantize", str(source), str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {file.name: file.read_bytes() for file in source.iterdir() if file.is_file()} == before
    kept = before.keys() - {INDEX, "config.json"} - {n for n in before if n.endswith(".safetensors")}
    assert "tokenizer.json" in kept
    assert all((out / name).read_bytes() == before[name] for name in kept)
    assert (out / "original" / "notes.bin").read_bytes() == b"\0\1"
    config = json.loads(before["config.json"])
    assert read_json(out / "config.json") == {k: v for k, v in config.items() if k != "quantization_config"}

    stored, copy, index = tensors_of(source), tensors_of(out), read_json(out / INDEX)
    assert all(value.dtype in (torch.bfloat16, stored.get(name, value).dtype) for name, value in copy.items())
    assert not [name for name in copy if name.endswith(("_blocks", "_scales", "_scale_inv"))]
    assert index["weight_map"].keys() == copy.keys()
    for name, file in index["weight_map"].items():
        assert name in load_file(out / file)
    size = sum(value.numel() * value.element_size() for value in copy.values())
    assert index["metadata"]["total_size"] == size == result["bytes_after"]
    assert result["decoded_tensors"] + result["copied_tensors"] == len(copy)
    if kind in UNEVEN:
        assert result["logits"] is None
        assert "multiples of FP8's blocks" in result["why_not_compared"]
    else:
        assert result["logits"] == {"tokens": 64, "largest_difference": 0.0, "same_token": 64}
        assert result["why_not_compared"] is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mxfp4", "fp8", "fp8 edge"])
def test_capture_and_answers_equal_those_of_the_dequantised_copy(packed, tmp_path, kind):
    """The default intervention trains, and neither step minds."""
    source, out = packed(kind), tmp_path / "plain"
    assert main(["models", "dequantize", str(source), str(out)]) == 0
    runs = []
    for model in (source, out):
        run = tmp_path / f"run-{model.name}"
        assert main(["capture", "--model", str(model), *TASKS, "--output", str(run)]) == 0
        options = ["--intervention", "steer", "--baselines", "none", "--capability", "none"]
        evaluated = tmp_path / f"evaluated-{model.name}"
        assert main(["run", "--model", str(model), *TASKS, *options, "--output", str(evaluated)]) == 0
        answers = read_jsonl(evaluated / "variants/base/responses/demo_harmful.jsonl")
        counts = {file.name: load_file(file) for file in (run / "routing").glob("*.safetensors")}
        runs.append((counts, [answer["response"] for answer in answers]))
    (counts, answers), (copied_counts, copied_answers) = runs
    assert answers == copied_answers
    assert counts.keys() == copied_counts.keys() == {"demo_harmful.safetensors", "demo_benign.safetensors"}
    for task, arrays in counts.items():
        assert arrays["counts"].sum() > 0
        for name, array in arrays.items():
            assert torch.equal(array, copied_counts[task][name])


@pytest.mark.parametrize("kind", ["mxfp4", "fp8 uneven"])
def test_diff_finds_no_difference_between_original_and_copy(packed, tmp_path, capsys, kind):
    source, out = packed(kind), tmp_path / "plain"
    assert main(["models", "dequantize", str(source), str(out)]) == 0
    capsys.readouterr()
    assert main(["models", "diff", str(source), str(out), "--json"]) == 0
    difference = json.loads(capsys.readouterr().out)
    assert (difference["experts"], difference["others"]) == ([], [])
    assert difference["compared"] > 0


@pytest.mark.parametrize("kind", UNEVEN)
def test_blocks_that_end_early_are_decoded_as_published(tiny_model, saved_model, kind):
    """Against the weights before packing: within what FP8 loses, in every block."""
    family, packer, settings = PACKED[kind]
    model = tiny_model(family, **settings).bfloat16()
    folder = packer(saved_model(model))
    loaded = load_model(ModelRef("packed", folder), device="cpu").moe.model
    before, after = (each.model.layers[0].mlp.down_proj.weight for each in (model, loaded))
    assert after.shape[1] == settings["intermediate_size"]
    assert after.dtype == torch.bfloat16
    assert (after - before).abs().max() < before.abs().max() / 16


def test_the_copy_can_be_trained_and_the_original_says_how(packed, refused, tmp_path, capsys):
    source, out = packed("mxfp4"), tmp_path / "plain"
    command = ["--baselines", "random_experts", "--draws", "1", "--capability", "none", *TASKS]
    command += ["--set", "training.max_steps=2", "--output", str(tmp_path / "run")]
    for step in ("run", "train"):
        line = refused(step, "--model", source, *command)
        assert "cannot train unsafe_experts, random_experts" in line
        assert f"`harness models dequantize {source} OUT`" in line
    assert main(["models", "dequantize", str(source), str(out)]) == 0
    assert main(["run", "--model", str(out), *command]) == 0
    assert read_json(tmp_path / "run/variants/unsafe_experts/proof.json")["frozen_unchanged"]


def test_evaluate_leaves_out_what_trains_by_name(packed, tmp_path, capsys):
    source, run = packed("fp8"), tmp_path / "run"
    command = ["--model", str(source), "--baselines", "steer", "--capability", "none", *TASKS]
    assert main(["evaluate", *command, "--output", str(run)]) == 0
    assert (
        f"skipping unsafe_experts: {source} is quantized (fp8): expected a dequantized copy"
        in capsys.readouterr().err
    )
    variants = read_json(run / "summary.json")["variants"]
    assert {name: bool(variant["skipped"]) for name, variant in variants.items()} == {
        "base": False,
        "unsafe_experts": True,
        "steer": False,
    }


@pytest.mark.parametrize(("kind", "dtype"), [("fp8", "float32"), ("fp8 uneven", "float16")])
def test_fp8_in_another_dtype_is_one_line(packed, refused, kind, dtype):
    source = packed(kind)
    for step in ("capture", "run"):
        line = refused(step, "--model", source, "--dtype", dtype, "--intervention", "base", *TASKS)
        assert f"expected --dtype auto or bfloat16, found {dtype}" in line


def test_a_checkpoint_whose_config_names_another_dtype_is_still_read(packed):
    source = packed("fp8")
    path = source / "config.json"
    path.write_text(json.dumps(read_json(path) | {"dtype": "float32"}))
    model = load_model(ModelRef("packed", source), device="cpu").moe.model
    assert model(torch.arange(5, 25)[None]).logits.isfinite().all()


def test_inspect_says_what_is_possible(packed, capsys):
    source = packed("fp8 small blocks")
    assert main(["models", "inspect", str(source)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "quantization fp8, blocks of 16 x 8" in text
    assert "capture, evaluation yes, on CPU and GPU" in text
    assert "training after `harness models dequantize SRC OUT`" in text
    reconfigure(source, {"quant_method": "compressed-tensors", "format": "float-quantized"})
    assert main(["models", "inspect", str(source), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["quantization"] == "compressed-tensors"
    assert facts["quantized"]["detail"] == "float-quantized"
    assert facts["quantized"]["training"].startswith("no: ")


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (
            {"quant_method": "compressed-tensors", "format": "pack-quantized"},
            "quantized (compressed-tensors, pack-q",
        ),
        ({"quant_method": "fp8", "weight_block_size": None}, "quantized (fp8, one scale per tensor)"),
        ({"quant_method": "fp8", "expert_dtype": "fp4"}, "quantized (fp8, experts in fp4)"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "expected two positive integers, found [128]"),
        ({"quant_method": "fp8", "weight_block_size": [64, 128]}, "expected F32 or BF16"),
        ({"quant_method": "mxfp4"}, "config.json says mxfp4, but no tensor is stored so"),
        ({"bits": 4}, "quantized (an unnamed method)"),
        ("int4", "quantized (int4)"),
        ({}, "is not quantized: there is nothing to decode"),
    ],
)
def test_what_cannot_be_decoded_is_one_line(packed, refused, tmp_path, scheme, expected):
    source = packed("fp8 uneven")
    reconfigure(source, scheme)
    assert expected in refused("models", "dequantize", source, tmp_path / "plain")


@pytest.mark.parametrize(
    ("scheme", "name"),
    [({"quant_method": "modelopt", "quant_algo": "FP8"}, "modelopt"), ({"bits": 4}, "an unnamed method")],
)
def test_a_method_that_transformers_does_not_know_is_not_read_as_plain_numbers(
    packed, refused, capsys, scheme, name
):
    source = packed("fp8")
    reconfigure(source, scheme)
    line = refused("capture", "--model", source, *TASKS)
    assert f"quantized ({name}), which transformers does not know" in line
    assert main(["models", "inspect", str(source), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quantized"]["capture"].startswith("no: ")


def test_without_a_dtype_in_config_json_original_and_copy_are_bfloat16(packed, tmp_path):
    source, out = packed("mxfp4"), tmp_path / "plain"
    config = read_json(source / "config.json")
    del config["dtype"]
    (source / "config.json").write_text(json.dumps(config))
    assert main(["models", "dequantize", str(source), str(out)]) == 0
    assert read_json(out / "config.json")["dtype"] == "bfloat16"
    for folder in (source, out):
        model = load_model(ModelRef("packed", folder), device="cpu").moe.model
        assert {value.dtype for value in model.parameters()} == {torch.bfloat16}


def test_experts_in_one_tensor_are_decoded_one_by_one(tmp_path):
    draw = torch.Generator().manual_seed(0)
    codes = torch.randn(3, 20, 12, generator=draw).to(torch.float8_e4m3fn)
    scales = torch.rand(3, 3, 2, generator=draw)
    name = "model.layers.0.mlp.experts.down_proj"
    save_file({name: codes, f"{name}_scale_inv": scales}, tmp_path / SINGLE)
    tensors = plain_tensors(places(tmp_path), Quantization("fp8", (8, 8)), tmp_path)
    expected = torch.stack([from_fp8(codes[e], scales[e], (8, 8)) for e in range(3)])
    assert tensors.keys() == {name}
    assert torch.equal(tensors[name].value(), expected)
    assert b"".join(tensors[name].chunks()) == bytes_of(expected)


_MEASURED = """
import resource, sys
from pathlib import Path
from harness.checkpoints.dequantize import _write_shards
from harness.models.dequantized import plain_tensors
from harness.models.quantized import Quantization
from harness.models.weights import places

def write(source, out):
    out.mkdir()
    _write_shards(source, out, plain_tensors(places(source), Quantization("fp8", (128, 128)), source), lambda n: None)

small, large = map(Path, sys.argv[1:])
write(small, small / "out")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write(large, large / "out")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_holds_one_tensor_and_not_the_checkpoint(tmp_path):
    for name, count in (("small", 1), ("large", 96)):
        (tmp_path / name).mkdir()
        tensors = {}
        for number in range(count):
            tensors[f"{number}.weight"] = torch.ones(1024, 1024).to(torch.float8_e4m3fn)
            tensors[f"{number}.weight_scale_inv"] = torch.ones(8, 8)
        save_file(tensors, tmp_path / name / SINGLE)
    command = [sys.executable, "-c", _MEASURED, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (tmp_path / "large/out" / SINGLE).stat().st_size > 192 * 2**20
    assert int(done.stdout) < 48 * 2**10  # KiB, of 96 MiB read and 192 written.


def test_an_output_that_exists_or_lies_inside_the_source_is_refused(packed, refused, tmp_path):
    source = packed()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "something").touch()
    assert "exists already" in refused("models", "dequantize", source, tmp_path / "there")
    assert "is inside" in refused("models", "dequantize", source, source / "plain")
    assert not (source / "plain").exists()


def weight(number: int) -> str:
    return f"model.layers.1.mlp.experts.{number}.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop(weight(3) + "_scale_inv"), "without its counterpart"),
        (lambda t: t.pop(weight(3)), "without its counterpart"),
        (lambda t: [t.pop(weight(3)), t.pop(weight(3) + "_scale_inv")], "experts.down_proj is [7, 32, 16]"),
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight is missing"),
        (lambda t: t.update({weight(3) + "_scale_inv": torch.ones(2, 1)}), "[1, 1], found F32 [2, 1]"),
        (lambda t: t.update({weight(3): torch.zeros(32, 16)}), "expected F8_E4M3"),
    ],
)
def test_a_damaged_checkpoint_is_one_line_before_any_work(packed, refused, tmp_path, change, expected):
    source = packed("fp8")
    rewrite(source, change)
    assert expected in refused("models", "dequantize", source, tmp_path / "plain")
    assert expected in refused("capture", "--model", source, *TASKS, "--output", tmp_path / "run")
    assert expected in refused("models", "inspect", source)


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [("mxfp4", "model.layers.1.mlp.experts.down_proj_scales", 255), ("fp8", weight(3), 0x7F)],
)
def test_codes_that_are_no_number_leave_nothing_behind(packed, refused, tmp_path, kind, name, code):
    source = packed(kind)
    rewrite(source, lambda tensors: tensors[name].view(torch.uint8)[0].fill_(code))
    assert "no finite numbers" in refused("models", "dequantize", source, tmp_path / "plain")


def test_a_copy_that_is_another_model_never_appears(packed, tmp_path, capsys, monkeypatch):
    """The bytes of one expert are lost on the way to the disk."""
    source, out = packed("fp8"), tmp_path / "plain"
    original = module._write_file

    def lossy(path: Path, tensors: Any, advance: Any) -> None:
        original(path, tensors, advance)
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(size - size // 3)
            file.write(b"\x40" * (size // 3))

    monkeypatch.setattr(module, "_write_file", lossy)
    assert main(["models", "dequantize", str(source), str(out)]) == 1
    assert "the copy is not the same model" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_logits_are_not_compared_where_memory_does_not_hold_the_model(tmp_path):
    ref = ModelRef("huge", tmp_path)
    assert "the model takes 1000000000 GB of memory" in compare_logits(ref, ref, 10**18)


def test_what_an_interrupted_call_left_is_no_obstacle(packed, tmp_path):
    source, out = packed("fp8"), tmp_path / "plain"
    shutil.copytree(source, tmp_path / "plain.partial")
    assert main(["models", "dequantize", str(source), str(out)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, "plain"]


def test_a_single_file_stays_a_single_file(packed, tmp_path):
    source, out = packed("mxfp4"), tmp_path / "plain"
    rewrite(source, lambda tensors: None)
    assert main(["models", "dequantize", str(source), str(out)]) == 0
    assert [file.name for file in out.glob("model*")] == [SINGLE]


def test_scales_in_a_file_of_their_own(packed, tmp_path):
    source, out = packed("fp8"), tmp_path / "plain"
    tensors = tensors_of(source)
    for file in source.glob("*.safetensors"):
        file.unlink()
    parts = {"weights.safetensors": False, "scales.safetensors": True}
    files = {
        file: {n: t for n, t in tensors.items() if n.endswith("_inv") == own} for file, own in parts.items()
    }
    for file, part in files.items():
        save_file(part, source / file, metadata={"format": "pt"})
    index = {
        "metadata": {"made_by": "hand"},
        "weight_map": {n: file for file, part in files.items() for n in part},
    }
    (source / INDEX).write_text(json.dumps(index))
    assert main(["models", "dequantize", str(source), str(out)]) == 0
    assert [file.name for file in out.glob("*.safetensors")] == ["weights.safetensors"]
    assert read_json(out / INDEX)["metadata"]["made_by"] == "hand"


def test_scales_of_every_published_dtype(packed, tmp_path):
    """E8M0 and its bytes are powers of two; bfloat16 as in Qwen3's."""
    source = packed("fp8")
    exponents = {
        torch.uint8: lambda value: torch.full(value.shape, 120, dtype=torch.uint8),
        torch.float8_e8m0fnu: lambda value: torch.full(value.shape, 120, dtype=torch.uint8).view(
            torch.float8_e8m0fnu
        ),
        torch.bfloat16: lambda value: torch.full(value.shape, 2.0**-7, dtype=torch.bfloat16),
        torch.float32: lambda value: torch.full(value.shape, 2.0**-7),
    }
    copies = []
    for number, scales in enumerate(exponents.values()):
        folder, out = tmp_path / f"source{number}", tmp_path / f"plain{number}"
        shutil.copytree(source, folder)
        rewrite(
            folder, lambda t, s=scales: t.update({n: s(v) for n, v in t.items() if n.endswith("_scale_inv")})
        )
        assert main(["models", "dequantize", str(folder), str(out)]) == 0
        copies.append(tensors_of(out))
    for copy in copies[1:]:
        assert all(torch.equal(value, copies[0][name]) for name, value in copy.items())
