"""What config.json says about weights that are stored in a code, and what is possible with them here.

transformers loads MXFP4 and FP8 either as they are, with kernels for some GPUs, or decoded into memory. Here it always
decodes them, so that answers and routes are the same on every device and belong to the weights that training would
start from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.base.files import read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

KEY = "quantization_config"
# DeepSeek-V3's, and what transformers takes where config.json names none.
_USUAL_BLOCK = (128, 128)
# The one dtype that transformers decodes FP8 to.
_DTYPES_OF_FP8 = ("auto", "bfloat16")


@dataclass(frozen=True)
class Quantization:
    """How the weights of a checkpoint are stored.

    Attributes:
        method: as config.json names it.
        block: rows and columns that share a scale; None except for FP8 in blocks.
        detail: what the method's name leaves open, for people.
        loads: whether transformers knows the method.
    """

    method: str
    block: tuple[int, int] | None = None
    detail: str = ""
    loads: bool = False

    @property
    def is_known(self) -> bool:
        """Whether the harness can decode it itself."""
        return self.method == "mxfp4" or self.block is not None

    def __str__(self) -> str:
        """Return the method with its detail, as messages show it."""
        return f"{self.method}, {self.detail}" if self.detail else self.method

    def facts(self) -> dict[str, str]:
        """Return the detail, and what can be done with such a checkpoint, as `models inspect` says it."""
        if not self.is_known:
            return {
                "detail": self.detail,
                "capture": "if transformers loads it (the method's package has to be installed); not tried"
                if self.loads
                else "no: transformers does not know the method and would take codes for numbers",
                "training": "no: it needs a plain copy, which `harness models dequantize` cannot make from this",
            }
        dtypes = "any --dtype" if self.method == "mxfp4" else "in bfloat16"
        return {
            "detail": self.detail,
            "capture": f"yes, on CPU and GPU: decoded in memory, {dtypes}; vLLM reads it as stored",
            "training": "after `harness models dequantize SRC OUT`",
        }


def quantization_in(config: Mapping[str, Any]) -> Quantization | None:
    """Return how the weights are stored that a config.json describes; None where they are plain numbers.

    Raises:
        BadInputError: the size of FP8's blocks is not two positive numbers.
    """
    for part in (config, config.get("text_config")):
        scheme = part.get(KEY) if isinstance(part, Mapping) else None
        if scheme:
            return _read(scheme) if isinstance(scheme, Mapping) else Quantization(str(scheme))
    return None


def _read(scheme: Mapping[str, Any]) -> Quantization:
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    method = str(scheme.get("quant_method", "an unnamed method"))
    # Older bitsandbytes names no method.
    loads = any(scheme.get(key) for key in ("load_in_8bit", "load_in_4bit"))
    loads = loads or method in AUTO_QUANTIZATION_CONFIG_MAPPING
    if method != "fp8":
        kind = scheme.get("format")
        return Quantization(method, detail=kind if isinstance(kind, str) else "", loads=loads)
    if scheme.get("expert_dtype", "fp8") != "fp8":
        return Quantization(method, detail=f"experts in {scheme['expert_dtype']}", loads=loads)
    block = scheme.get("weight_block_size", _USUAL_BLOCK)
    if block is None:
        return Quantization(method, detail="one scale per tensor", loads=loads)
    if not (
        isinstance(block, list | tuple)
        and len(block) == 2
        and all(isinstance(size, int) and size > 0 for size in block)
    ):
        raise BadInputError(
            f"config.json: {KEY}.weight_block_size: expected two positive integers, found {block}"
        )
    return Quantization(method, (block[0], block[1]), f"blocks of {block[0]} x {block[1]}", loads)


def quantization_of(folder: Path) -> Quantization | None:
    """Return how a checkpoint's weights are stored; None where they are plain numbers."""
    return quantization_in(read_json_object(folder / "config.json"))


def remedy(folder: Path, quantization: Quantization) -> str:
    """Return what makes a checkpoint usable that is refused because of its quantisation."""
    if quantization.is_known:
        return f"expected a dequantized copy, as `harness models dequantize {folder} OUT` writes it"
    return "expected plain numbers; `harness models dequantize` decodes mxfp4 and fp8 in blocks, and nothing else"


def why_not_trained(folder: Path) -> str | None:
    """Return why a checkpoint's experts cannot be trained or replaced, with the command that helps, or None."""
    quantization = quantization_of(folder)
    if quantization is None:
        return None
    return f"{folder} is quantized ({quantization.method}): {remedy(folder, quantization)}"


def refuse_quantized(folder: Path) -> None:
    """Refuse a checkpoint whose experts cannot be replaced, since they are stored in a code instead of plain numbers.

    Raises:
        BadInputError: names the method and the command that helps.
    """
    reason = why_not_trained(folder)
    if reason is not None:
        raise BadInputError(reason)


def check_dtype(folder: Path, dtype: str) -> None:
    """Refuse a dtype that a quantised checkpoint cannot be loaded in, and a method that transformers does not know.

    Args:
        folder: of the checkpoint.
        dtype: "auto", or a name of torch.

    Raises:
        BadInputError: says which are possible.
    """
    quantization = quantization_of(folder)
    if quantization is None:
        return
    if quantization.method == "fp8" and dtype not in _DTYPES_OF_FP8:
        raise BadInputError(
            f"{folder} is quantized ({quantization}), which is decoded to bfloat16: expected --dtype "
            f"{' or '.join(_DTYPES_OF_FP8)}, found {dtype}"
        )
    if not quantization.loads:
        # It would take the codes for plain numbers.
        raise BadInputError(
            f"{folder} is quantized ({quantization}), which transformers does not know: {remedy(folder, quantization)}"
        )


def decode_in_memory(config: PreTrainedConfig) -> None:
    """Set a configuration so that transformers decodes MXFP4 and FP8 on loading, whatever the device."""
    for part in (config, config.get_text_config(decoder=True)):
        scheme = getattr(part, KEY, None)
        if isinstance(scheme, dict) and scheme.get("quant_method") in ("mxfp4", "fp8"):
            scheme["dequantize"] = True


def without_quantization(config: PreTrainedConfig) -> None:
    """Take out of a configuration that the weights are quantised."""
    for part in (config, config.get_text_config(decoder=True)):
        if hasattr(part, KEY):
            delattr(part, KEY)


def scale_grid(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of the scales of a weight, [..., rows, columns], in FP8 blocks."""
    rows, columns = shape[-2:]
    return (*shape[:-2], math.ceil(rows / block[0]), math.ceil(columns / block[1]))
