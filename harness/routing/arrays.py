"""Arrays of routed experts as other engines record them, [tokens, layers, k], read and checked.

vLLM gives a `.npy` array, in its server's JSON as base64; SGLang gives base64 of flat int32 numbers. Either may have a
place for every layer or for the MoE layers alone.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.models.moe import ranges

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.models.moe import MoEModel

    Array = npt.NDArray[np.integer[Any]]

_NPY = b"\x93NUMPY"


def decoded(value: object) -> Array:
    """Return the numbers that a value of JSON holds; base64 of int32 comes back flat.

    Args:
        value: base64 of a `.npy` file or of int32 numbers, or lists of lists of numbers.

    Raises:
        ValueError: it is none of these, or not whole.
    """
    array: npt.NDArray[Any]
    if isinstance(value, list):
        try:
            array = np.array(value)
        except ValueError:
            raise ValueError("its lists are not of equal lengths") from None
    elif isinstance(value, str):
        array = _of_base64(value)
    else:
        raise ValueError(f"expected base64 or lists of numbers, found a {type(value).__name__}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"expected whole numbers, found {array.dtype}")
    return array


def _of_base64(text: str) -> npt.NDArray[Any]:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not whole base64 ({error})") from None
    if data.startswith(_NPY):
        try:
            array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"not a whole .npy array ({' '.join(str(error).split())})") from None
        return array
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes are neither a .npy array nor whole int32 numbers")
    return np.frombuffer(data, dtype="<i4")


def fitted(array: Array, tokens: int, moe: MoEModel) -> Array:
    """Return the routing of a model's MoE layers, [tokens, L, k].

    Args:
        array: [tokens, layers, k], or flat.
        tokens: how many went through the model.
        moe: the model, with or without weights.

    Raises:
        ValueError: the array fits another model or another number of tokens, or no router can have chosen so.
    """
    k, indices = moe.experts_per_token, moe.layer_indices
    every = int(moe.model.config.get_text_config().num_hidden_layers)
    layers = f"{len(indices)} MoE layers" + (f" or {every} layers" if every != len(indices) else "")
    if array.ndim == 1:
        width = next((n for n in (len(indices), every) if array.size == tokens * n * k), None)
        if width is None:
            raise ValueError(
                f"{array.size} numbers, expected those of {tokens} tokens (prompt + answer - 1), {layers} and {k} "
                "experts per token"
            )
        array = array.reshape(tokens, width, k)
    if array.ndim != 3:
        raise ValueError(f"expected [tokens, layers, k], found {list(array.shape)}")
    if array.shape[0] != tokens:
        raise ValueError(
            f"{array.shape[0]} tokens, expected {tokens} (prompt + answer - 1; rows of the whole prompt, cached or not)"
        )
    if array.shape[1] not in (len(indices), every):
        raise ValueError(f"{array.shape[1]} layers, expected {layers}")
    if array.shape[2] != k:
        raise ValueError(f"{array.shape[2]} experts per token, expected {k}")
    if array.shape[1] != len(indices):
        array = array[:, indices]
    _check(array, moe)
    return array


def _check(array: Array, moe: MoEModel) -> None:
    """Refuse what no router chooses, [T, L, k]: silent zeros are worse than no number."""
    if not array.any():
        raise ValueError("all zeros: nothing was recorded")
    indices = moe.layer_indices
    outside = (array < 0) | (array >= moe.n_experts)
    if outside.any():
        token, layer, slot = np.argwhere(outside)[0]
        raise ValueError(
            f"token {token}, layer {indices[layer]}: expert {array[token, layer, slot]}, expected 0 to "
            f"{moe.n_experts - 1} (MoE layers: {ranges(indices)})"
        )
    ordered = np.sort(array, axis=-1)
    repeated = (ordered[..., 1:] == ordered[..., :-1]).any(axis=-1)
    if repeated.any():
        token, layer = np.argwhere(repeated)[0]
        raise ValueError(
            f"token {token}, layer {indices[layer]}: experts {array[token, layer].tolist()}, expected no expert twice"
        )
