"""Whether two checkpoints of a model give the same logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.errors import HarnessError
from harness.base.progress import say
from harness.models.auto import config_of, how_to_load, load_whole
from harness.models.dequantized import decoded_here
from harness.models.load import ModelRef

if TYPE_CHECKING:
    import torch

_TOKENS, _SEED = 64, 0
# Of the memory that is free, and of the largest logit.
_SHARE_OF_MEMORY, _FARTHEST = 0.9, 0.01


@dataclass(frozen=True)
class Likeness:
    """How alike the logits of two models are.

    Attributes:
        tokens: positions that were compared.
        largest_difference: over positions and vocabulary.
        same_token: positions at which the likeliest token is the same.
    """

    tokens: int
    largest_difference: float
    same_token: int

    def __str__(self) -> str:
        """Return it in words."""
        if self.largest_difference == 0:
            return f"its logits equal the original's, as loaded, at {self.tokens} positions"
        return (
            f"its logits differ from the original's, as loaded, by at most {self.largest_difference:.2g}; the "
            f"likeliest token is the same at {self.same_token} of {self.tokens} positions"
        )


def compare_logits(original: ModelRef, copy: ModelRef, size: int) -> Likeness | str:
    """Compare a dequantised copy with its original as transformers loads that, on the CPU, one after the other.

    Args:
        original: the quantised checkpoint.
        copy: the same in bfloat16.
        size: bytes of the copy, which both take in memory.

    Returns:
        The comparison on a text of random tokens, or why there is none.

    Raises:
        HarnessError: the two are not the same model.
    """
    import psutil

    available = psutil.virtual_memory().available
    if size > _SHARE_OF_MEMORY * available:
        return f"the model takes {size / 1e9:.0f} GB of memory, {available / 1e9:.0f} GB are free"
    if decoded_here(original.path) is not None:
        return "transformers cannot load the original: it needs sizes that are multiples of FP8's blocks"
    say("comparing the logits of the original and the copy")
    expected, found = (_logits(ref) for ref in (original, copy))
    difference = float((expected - found).abs().max())
    same = int((expected.argmax(-1) == found.argmax(-1)).sum())
    if not difference <= _FARTHEST * float(expected.abs().max()):
        raise HarnessError(
            f"the copy is not the same model: its logits differ from those of {original.path} by {difference:.2g}"
        )
    return Likeness(_TOKENS, difference, same)


def _logits(ref: ModelRef) -> torch.Tensor:
    """Return the logits of a fixed text of random tokens, [T, vocabulary], in float32."""
    import torch

    config = config_of(ref.path, ref.trust_remote_code)
    kind, weights, _ = how_to_load(config, ref.path, "bfloat16", ref.trust_remote_code)
    model = load_whole(
        kind,
        ref.path,
        weights,
        config=config,
        dtype=torch.bfloat16,
        trust_remote_code=ref.trust_remote_code,
    )
    vocabulary = config.get_text_config().vocab_size
    # From the middle of the vocabulary: control tokens, such as the place of an image, are at its ends.
    draw = torch.Generator().manual_seed(_SEED)
    tokens = torch.randint(
        vocabulary // 8, max(vocabulary // 2, vocabulary // 8 + 1), (1, _TOKENS), generator=draw
    )
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(input_ids=tokens, use_cache=False).logits
    return logits[0].float()
