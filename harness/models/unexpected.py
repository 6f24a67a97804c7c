"""Tensors that a checkpoint holds and its model has no place for: which of them say that config.json is another's.

transformers leaves them out with a warning. Parts for other purposes (drafting heads, towers for images) may be left
out; a layer, a bias or a norm of the language model itself may not: the model would compute something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from harness.models.weights import Place

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LAYER = re.compile(r"(?:^|\.)(?:layers|blocks|h)\.(\d+)(?:\.|$)")
# Parts beside the language model: drafting of several tokens, and what sees, hears or speaks.
_BESIDE = re.compile(
    r"(?:^|[._])(?:mtp|nextn|eagle|draft|medusa|vision|visual|vit|image|audio|speech|talker|code2wav|mm|multi_modal"
    r"|projector|aligner)",
    re.IGNORECASE,
)
# The marks of a layer that drafts: they join a hidden state with the next token's embedding.
_DRAFTS = re.compile(r"\.(?:eh_proj|enorm|hnorm|shared_head|nextn|mtp)")
# What older versions saved besides: rotary frequencies, causal masks; scales of a quantized cache.
_COMPUTED = re.compile(
    r"(?:inv_freq|masked_bias|(?:attn|attention)\.(?:bias|mask)|causal_mask|position_ids|[kv]_scale|[kv]_zero_point"
    r"|input_scale)$"
)
_MORE_LAYERS = ("num_nextn_predict_layers", "mtp_num_layers", "num_mtp_layers", "mtp_num_hidden_layers")
# Numbers in a code, which means nothing without a quantization_config.
_CODES = ("F8_", "F4", "F6_", "I8", "U8", "I4", "U4")


def unexpected(names: Iterable[str], model: PreTrainedModel) -> Iterator[str]:
    """Yield one line for each unexpected tensor of the language model itself.

    Args:
        names: that transformers had no place for.
        model: of the checkpoint's config.json.
    """
    names = [name for name in sorted(names) if not _BESIDE.search(name) and not _COMPUTED.search(name)]
    if not names:
        return
    modules = dict(model.named_modules())
    layers = [
        int(found[1]) + 1 for name in modules if not _BESIDE.search(name) and (found := _LAYER.search(name))
    ]
    n_layers = max(layers, default=0)
    config = model.config.get_text_config()
    drafting = max(
        (count for key in _MORE_LAYERS if isinstance(count := getattr(config, key, 0), int)), default=0
    )
    drafts = {found[1] for name in names if _DRAFTS.search(name) and (found := _LAYER.search(name))}
    for name in names:
        layer = _LAYER.search(name)
        if layer and int(layer[1]) >= n_layers:
            if layer[1] not in drafts and int(layer[1]) >= n_layers + drafting:
                yield f"{name} is there, expected {n_layers} layers"
        elif layer or _has_tensors(modules.get(name.rpartition(".")[0])):
            yield f"{name} is there, expected no such tensor"


def _has_tensors(module: object) -> bool:
    return bool(getattr(module, "_parameters", None))


def in_a_code(stored: Mapping[str, Place]) -> Iterator[str]:
    """Yield one line for each tensor whose numbers are in a code, of a checkpoint that is said not to be quantized."""
    for name, place in sorted(stored.items()):
        if place.dtype.startswith(_CODES):
            yield f"{name} is stored as {place.dtype}, expected a quantization_config for it"
