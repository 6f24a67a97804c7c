"""One prompt and its answer, token by token: how much gate weight each token gave to the selected experts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.base.errors import BadInputError

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedTokenizerBase

    from harness.routing.tokens import TokenRouting


class TokenTexts(NamedTuple):
    """What each token reads, and why it is only the token's id where it is."""

    texts: tuple[str, ...]
    why_ids: str | None


class Sample(NamedTuple):
    """One prompt with its answer.

    Attributes:
        name: TASK/ID.
        texts: of the tokens, [T].
        shares: share of each token's gate weight that went to selected experts, [T].
        prompt_tokens: how many of the tokens are the prompt's.
        layers: how many layers hold selected experts.
        experts: how many experts are selected.
    """

    name: str
    texts: TokenTexts
    shares: npt.NDArray[np.float64]
    prompt_tokens: int
    layers: int
    experts: int


def selected_share(
    routing: TokenRouting, layers: Sequence[int], n_experts: int, selected: Collection[tuple[int, int]]
) -> npt.NDArray[np.float64]:
    """Return the share of each token's gate weight that went to selected experts, [T].

    Only layers that hold selected experts are looked at: in the others the share is zero whatever the token is.

    Args:
        routing: the prompt's tokens.
        layers: true indices of the MoE layers.
        n_experts: E.
        selected: (layer, expert) pairs.

    Raises:
        BadInputError: a selected expert is in a layer that was not recorded.
    """
    place = {layer: i for i, layer in enumerate(layers)}
    is_selected = np.zeros((len(layers), n_experts), dtype=np.bool_)
    for layer, expert in selected:
        if layer not in place or not 0 <= expert < n_experts:
            raise BadInputError(f"expert {expert} of layer {layer} is selected but was not recorded")
        is_selected[place[layer], expert] = True
    holding = np.flatnonzero(is_selected.any(axis=1))
    experts, weights = routing.experts[:, holding], routing.weights[:, holding].astype(np.float64)
    went = np.where(is_selected[holding[None, :, None], experts], weights, 0.0).sum(axis=(1, 2))
    every = weights.sum(axis=(1, 2))
    share: npt.NDArray[np.float64] = np.divide(went, every, out=np.zeros(len(every)), where=every > 0)
    return share


def token_texts(ids: Sequence[int], load_tokenizer: Callable[[], PreTrainedTokenizerBase]) -> TokenTexts:
    """Read each token with the model's tokenizer, or show its id where there is none.

    Args:
        ids: the token ids.
        load_tokenizer: returns the model's tokenizer, or raises BadInputError.
    """
    try:
        tokenizer = load_tokenizer()
    except BadInputError:
        return TokenTexts(tuple(map(str, ids)), "token ids are shown: the model's tokenizer cannot be loaded")
    if max(ids, default=0) >= len(tokenizer):
        return TokenTexts(
            tuple(map(str, ids)), "token ids are shown: the model's tokenizer is another one now"
        )
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    texts = [str(tokenizer.decode([token])) for token in ids]
    # SentencePiece tokenizers drop the space before a word where it is decoded alone.
    spaced = [
        f" {text}" if str(piece).startswith("\u2581") and not text.startswith(" ") else text
        for piece, text in zip(pieces, texts, strict=True)
    ]
    return TokenTexts(tuple(spaced), None)
