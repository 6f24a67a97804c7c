"""Turn a dense Llama-type language model into a Mixture of Experts that computes the same function.

Every MLP becomes `experts` equal copies (sparse upcycling, Komatsuzaki et al. 2022, arXiv:2212.05055). A
token's gate weights sum to one, so the copies give the dense model's output whatever the routers say. The
routers are therefore free to follow content: they hold the spherical k-means centres of each layer's inputs.

Mixtral's routers have no bias, so a centre can't be compared with inputs that have their mean subtracted.
Instead the direction of the mean is projected out of the inputs before clustering. The centres are then
orthogonal to the mean, which therefore moves no router logit: that is what centring amounts to without a
bias. On SmolLM2-135M it spreads unseen text more evenly than centres of centred inputs used as they are
(entropy of the top-2 load 2.01 against 1.94, of 2.08 for equal shares).
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness.base.errors import BadInputError, HarnessError
from harness.base.files import full_disk_named, move_folder
from harness.models.auto import load_whole
from harness.zoo.clustering import load_entropy, spherical_k_means

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SOURCE_TYPES = ("llama", "mistral")
ROUTER_SCALE = 12.0
"""Router logits are this times the cosine between a token and a centre, for a token of average length.

On SmolLM2-135M the larger of two gate weights is then 0.87 on average."""

_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest allowed difference of a logit, as a share of the largest logit."""
_CHECKED_TEXTS = 8
_SAME_CONFIG = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range"),
    *("rms_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings"),
    *("attention_dropout", "rope_parameters"),
)


@dataclass(frozen=True, slots=True)
class UpcycleResult:
    """What was built, and how far its logits are from the dense model's.

    Attributes:
        load_entropies: entropy (nats) of the experts' shares of the calibration tokens, per MoE layer.
        uniform_entropy: log(experts), the entropy of equal shares.
        differences: per checked dtype, the largest difference of a logit over the largest logit.
    """

    load_entropies: list[float]
    uniform_entropy: float
    differences: dict[str, float]


def upcycle(
    source: Path | PreTrainedModel,
    out: Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    experts: int = 8,
    top_k: int = 2,
    calibration_texts: Sequence[str] | None = None,
    seed: int = 0,
    dtype: str = "bfloat16",
    check_float32: bool = True,
) -> UpcycleResult:
    """Write a Mixtral-type MoE that gives the same logits as a dense Llama or Mistral model.

    Args:
        source: a local checkpoint folder, or a loaded model (which is converted to `dtype` in place).
        out: folder to write; must not exist or be empty. It appears whole or not at all.
        tokenizer: needed with a loaded model; read from `source` otherwise.
        experts: copies of each MLP.
        top_k: experts per token.
        calibration_texts: texts whose MLP inputs are clustered into the routers' centres, as chat messages of
            a user where the tokenizer has a chat template; by default those of calibration_texts.yaml.
        seed: of the k-means starts.
        dtype: of the saved weights: "bfloat16", "float16" or "float32".
        check_float32: compare the logits in float32 too, which needs 4 bytes per parameter of the MoE.

    Raises:
        BadInputError: the source is no dense Llama or Mistral checkpoint, an argument does not fit, or
            `out` holds something.
        HarnessError: the logits of what was written differ from the dense model's.
    """
    import torch

    texts = default_texts() if calibration_texts is None else calibration_texts
    _check_arguments(out, experts, top_k, texts, dtype)
    torch_dtype: torch.dtype = getattr(torch, dtype)
    if isinstance(source, os.PathLike):
        dense, tokenizer = _load_dense(Path(source), torch_dtype)
    else:
        _check_config(source.config.to_dict(), source.name_or_path or "the model given")
        dense = _cast(source, torch_dtype)
    if tokenizer is None:
        raise BadInputError("upcycle: a model that is already loaded needs its tokenizer too")

    rows = encode_texts(tokenizer, texts)
    routers, entropies = _routers(dense, rows, experts, top_k, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        whole = Path(temporary) / "moe"
        moe = _mixtral(dense, routers, experts, top_k)
        with full_disk_named(out, sum(value.nbytes for value in moe.state_dict().values())):
            moe.save_pretrained(whole)
            tokenizer.save_pretrained(whole)
        del moe
        checked = {dtype, "float32"} if check_float32 else {dtype}
        differences = {
            name: _difference(dense, whole, rows[:_CHECKED_TEXTS], name) for name in sorted(checked)
        }
        # Another build may have come first.
        require_empty(out)
        if out.exists():
            out.rmdir()
        move_folder(whole, out)
    return UpcycleResult(entropies, math.log(experts), differences)


def default_texts() -> list[str]:
    """Return the texts of calibration_texts.yaml."""
    path = Path(__file__).with_name("calibration_texts.yaml")
    texts: list[str] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return texts


def require_empty(out: Path) -> None:
    """Check that the place of a new model is free.

    Raises:
        BadInputError: `out` is a file, or a folder that holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInputError(f"{out}: already holds something, expected a new or an empty folder")


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, as a user's chat message where the tokenizer has a chat template."""
    if tokenizer.chat_template is None:
        return list(tokenizer(list(texts))["input_ids"])
    chats = [[{"role": "user", "content": text}] for text in texts]
    rows: list[list[int]] = tokenizer.apply_chat_template(chats, return_dict=False)
    return rows


def _check_arguments(out: Path, experts: int, top_k: int, texts: Sequence[str], dtype: str) -> None:
    if experts < 2 or not 1 <= top_k <= experts:
        raise BadInputError(
            f"upcycle: experts={experts} and top_k={top_k}, expected 2 <= experts and 1 <= top_k <= experts"
        )
    if not texts:
        raise BadInputError("upcycle: no calibration texts, expected at least one")
    if dtype not in _TOLERANCE:
        raise BadInputError(f"upcycle: dtype '{dtype}', expected one of {', '.join(_TOLERANCE)}")
    require_empty(out)


def _load_dense(source: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if not (source / "config.json").is_file():
        raise BadInputError(f"{source}: no config.json, expected the folder of a transformers checkpoint")
    _check_config(AutoConfig.from_pretrained(source).to_dict(), str(source))
    tokenizer = AutoTokenizer.from_pretrained(source)
    return _cast(load_whole(AutoModelForCausalLM, source), dtype), tokenizer


def _check_config(config: dict[str, Any], where: str) -> None:
    model_type = config.get("model_type")
    if model_type not in SOURCE_TYPES:
        raise BadInputError(
            f"{where}: model_type '{model_type}' can't be upcycled, expected {' or '.join(SOURCE_TYPES)}"
        )
    for field in ("attention_bias", "mlp_bias"):
        if config.get(field):
            raise BadInputError(f"{where}: {field} is set, but Mixtral layers have no such bias")
    if config.get("quantization_config"):
        raise BadInputError(f"{where}: quantised weights, expected plain floating point")


def _routers(
    dense: Any, rows: list[list[int]], experts: int, top_k: int, seed: int
) -> tuple[list[torch.Tensor], list[float]]:
    """Return each layer's router weight [E, H] float32, and the entropy of the load that it gives."""
    import torch

    inputs = _mlp_inputs(dense, rows)
    if len(inputs[0]) < experts:
        raise BadInputError(
            f"upcycle: the calibration texts hold {len(inputs[0])} tokens, expected {experts} or more"
        )
    generator = torch.Generator().manual_seed(seed)
    routers, entropies = [], []
    for layer in inputs:
        mean = torch.nn.functional.normalize(layer.mean(dim=0), dim=0)
        centred = layer - (layer @ mean)[:, None] * mean
        centres, _ = spherical_k_means(centred, experts, generator)
        routers.append(centres * (ROUTER_SCALE / centred.norm(dim=-1).mean()))
        entropies.append(load_entropy(layer @ routers[-1].T, top_k))
    return routers, entropies


def _mlp_inputs(dense: Any, rows: list[list[int]]) -> list[torch.Tensor]:
    """Return each layer's MLP inputs [T, H] in float32 on the CPU.

    What a chat template puts before every text is the same token for token in all of them, so its
    inputs are left out: they would draw centres to themselves by mere repetition.
    """
    import torch

    shared = _shared_prefix(rows) if len(rows) > 1 else 0
    layers = dense.model.layers
    collected: list[list[torch.Tensor]] = [[] for _ in layers]
    with torch.inference_mode(), _listening([layer.mlp for layer in layers], collected, shared):
        for row in rows:
            dense(input_ids=torch.tensor([row], device=dense.device), use_cache=False, logits_to_keep=1)
    return [torch.cat(pieces) for pieces in collected]


def _shared_prefix(rows: list[list[int]]) -> int:
    columns = zip(*rows, strict=False)
    return next((index for index, ids in enumerate(columns) if len(set(ids)) > 1), min(map(len, rows)))


@contextmanager
def _listening(modules: list[Any], collected: list[list[torch.Tensor]], skip: int) -> Iterator[None]:
    def listen(index: int) -> Any:
        def hook(_module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            collected[index].append(arguments[0][0, skip:].float().cpu())

        return hook

    handles = [module.register_forward_pre_hook(listen(index)) for index, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mixtral(dense: Any, routers: list[torch.Tensor], experts: int, top_k: int) -> Any:
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        **{field: getattr(dense.config, field) for field in _SAME_CONFIG},
        sliding_window=getattr(dense.config, "sliding_window", None),
        num_local_experts=experts,
        num_experts_per_tok=top_k,
        dtype=dense.dtype,
    )
    state = dict(dense.state_dict())
    for layer, router in enumerate(routers):
        mlp = f"model.layers.{layer}.mlp."
        gate, up, down = (state.pop(f"{mlp}{name}_proj.weight") for name in ("gate", "up", "down"))
        state[f"{mlp}gate.weight"] = router.to(gate)
        state[f"{mlp}experts.gate_up_proj"] = torch.cat([gate, up]).repeat(experts, 1, 1)  # [E, 2I, H]
        state[f"{mlp}experts.down_proj"] = down.repeat(experts, 1, 1)  # [E, H, I]
    with torch.device("meta"):
        moe = MixtralForCausalLM(config)
    moe.load_state_dict(state, assign=True)
    moe.tie_weights()
    moe.generation_config = dense.generation_config
    return moe


def _difference(dense: Any, checkpoint: Path, rows: list[list[int]], dtype: str) -> float:
    """Return the largest difference of a logit between `dense` and the saved MoE, over the largest logit."""
    import torch
    from transformers import AutoModelForCausalLM

    moe: Any = load_whole(AutoModelForCausalLM, checkpoint, dtype=getattr(torch, dtype))
    moe.to(dense.device)
    stored = dense.dtype
    _cast(dense, moe.dtype)
    largest = worst = 0.0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row], device=dense.device)
            expected = dense(input_ids=ids, use_cache=False).logits.float()
            got = moe(input_ids=ids, use_cache=False).logits.float()
            largest = max(largest, float(expected.abs().max()))
            worst = max(worst, float((got - expected).abs().max().nan_to_num(math.inf)))
    _cast(dense, stored)  # exact: the values came from this dtype
    difference = worst / largest
    if not difference <= _TOLERANCE[dtype]:
        raise HarnessError(
            f"upcycle: in {dtype} a logit of the MoE is {worst:.3g} away from the dense model's, "
            f"{difference:.2g} of the largest; expected at most {_TOLERANCE[dtype]:g}"
        )
    return difference


def _cast(model: Any, dtype: torch.dtype) -> Any:
    """Convert the weights in place; `model.to(dtype)` would also round the rotary frequencies."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.eval()
