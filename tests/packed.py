"""Checkpoints in the layouts that quantised models are published in, packed from plain ones.

The library's own FP8 quantiser wants a GPU and its MXFP4 one kernels from the hub, so the packing is done here: MXFP4
as gpt-oss has it (`_blocks` and `_scales` of fused, transposed experts) and FP8 in blocks as DeepSeek-V3 and Qwen3 have
it (`weight_scale_inv` beside each weight of a linear layer).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_FP8_LARGEST = 448.0
_LINEAR = re.compile(r".*(_proj|kv_a_proj_with_mqa)\.weight")


def pack_mxfp4(folder: Path, shards: int = 2) -> Path:
    """Turn a saved gpt-oss into one with experts in MXFP4."""

    def packed(name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            return {name: value}
        # [E, in, out] in memory; on disk [E, out, in / 32, 16].
        groups = value.float().transpose(1, 2).unflatten(-1, (-1, 32))
        largest = groups.abs().amax(-1).clamp(min=2.0**-120)
        exponents = torch.ceil(torch.log2(largest / 6)).int()
        scaled = groups / torch.exp2(exponents.float()).unsqueeze(-1)
        codes = (scaled.unsqueeze(-1) - torch.tensor(FP4)).abs().argmin(-1).to(torch.uint8)
        return {
            f"{name}_blocks": (codes[..., 0::2] | (codes[..., 1::2] << 4)).contiguous(),
            f"{name}_scales": (exponents + 127).to(torch.uint8).contiguous(),
        }

    scheme = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    return _repack(folder, packed, scheme, shards)


def pack_fp8(folder: Path, block: tuple[int, int] = (128, 128), shards: int = 2) -> Path:
    """Turn a saved checkpoint into one whose linear layers are in block FP8."""

    def packed(name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
        if not _LINEAR.fullmatch(name):
            return {name: value}
        rows, columns = value.shape
        scales = torch.empty(math.ceil(rows / block[0]), math.ceil(columns / block[1]))
        codes = torch.empty(value.shape, dtype=torch.float8_e4m3fn)
        for i in range(scales.shape[0]):
            for j in range(scales.shape[1]):
                part = (slice(i * block[0], (i + 1) * block[0]), slice(j * block[1], (j + 1) * block[1]))
                scales[i, j] = value[part].float().abs().max() / _FP8_LARGEST
                codes[part] = (value[part].float() / scales[i, j]).to(torch.float8_e4m3fn)
        return {name: codes, f"{name}_scale_inv": scales}

    scheme = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block),
    }
    return _repack(folder, packed, scheme, shards)


def _repack(folder: Path, packed: Any, scheme: dict[str, Any], shards: int) -> Path:
    tensors: dict[str, torch.Tensor] = {}
    for name, value in load_file(folder / SINGLE).items():
        tensors |= packed(name, value)
    (folder / SINGLE).unlink()
    # Scales and their weights fall into different files at times, as in DeepSeek-V3's.
    names = sorted(tensors)
    weight_map = {
        name: f"model-{1 + i % shards:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)
    }
    for file in set(weight_map.values()):
        save_file(
            {n: tensors[n] for n in names if weight_map[n] == file}, folder / file, metadata={"format": "pt"}
        )
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": scheme}))
    return folder
