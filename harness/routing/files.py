"""routing/TASK.safetensors: counts and gate mass, and with `--record` the single tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from harness.base.errors import BadInputError
from harness.base.files import write_whole
from harness.routing.counts import STORED_PHASES, Record, RoutingCounts
from harness.routing.tokens import RoutedTokens, answer_at

_TOKENS = ("offsets", "token_ids", "experts", "weights")


def save_routing(counts: RoutingCounts, path: Path, tokens: RoutedTokens | None = None) -> None:
    """Write counts as safetensors, with ids and layers in the file's metadata, and single tokens if given."""
    from safetensors.numpy import save_file

    # Without reasoning a file is what earlier versions write and read.
    kept = counts.stored
    # One entry: safetensors writes several in a random order, and equal counts should be equal files.
    header = {
        "harness": json.dumps(
            {
                "ids": counts.ids,
                "layers": counts.layers,
                "experts_per_token": counts.experts_per_token,
                "phases": kept,
            }
        )
    }
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "counts": counts.counts[:, : len(kept)],
        "tokens": counts.tokens[:, : len(kept)],
    }
    if counts.mass is not None:
        arrays["mass"] = counts.mass[:, : len(kept)]
    if tokens is not None:
        arrays |= {f"token.{name}": getattr(tokens, name) for name in _TOKENS}
        if tokens.logits is not None:
            arrays["token.logits"] = tokens.logits
    # safetensors writes the buffer as it lies in memory: a transposed view would come back scrambled.
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    size = sum(array.nbytes for array in whole.values())
    write_whole(path, lambda temporary: save_file(whole, temporary, metadata=header), size)


def load_counts(path: Path) -> RoutingCounts:
    """Read counts and check them.

    Raises:
        BadInputError: the file is truncated or is not one of ours.
        HarnessError: its counts do not add up.
    """
    with _opened(path) as (file, header):
        loaded = _counts(path, file, header)
    loaded.check(str(path))
    return loaded


def load_tokens(path: Path, with_logits: bool = True) -> RoutedTokens:
    """Read the single tokens and check them against the counts.

    Args:
        path: the file.
        with_logits: read router logits too, where the file has them; they are most of it.

    Raises:
        BadInputError: the file is truncated, is not one of ours, or holds no single tokens.
        HarnessError: the tokens are not those that were counted.
    """
    with _opened(path) as (file, header):
        counts = _counts(path, file, header)
        names = set(file.keys())
        if "token.experts" not in names:
            raise BadInputError(f"{path} holds counts only: capture again with --record tokens")
        arrays = {name: file.get_tensor(f"token.{name}") for name in _TOKENS}
        logits = file.get_tensor("token.logits") if with_logits and "token.logits" in names else None
    tokens = RoutedTokens(
        ids=counts.ids,
        prompt_tokens=counts.of("prompt")[1].astype(np.int32),
        logits=logits,
        answer_at=answer_at(counts.of("reasoning")[1], counts.of("decision")[1]),
        **arrays,
    )
    tokens.check(counts, str(path))
    return tokens


def recorded(path: Path) -> Record:
    """Say how much of the routing a file holds.

    Raises:
        BadInputError: it is not a whole file of routing counts.
    """
    with _opened(path) as (file, _header):
        names = set(file.keys())
    if "token.logits" in names:
        return "logits"
    return "tokens" if "token.experts" in names else "counts"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the open file and its header; any error with it inside the block becomes one line."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file, json.loads((file.metadata() or {})["harness"])
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path} is not a whole file of routing counts: {error}") from error


def _counts(path: Path, file: Any, header: dict[str, Any]) -> RoutingCounts:
    phases = tuple(header["phases"])
    if phases not in (STORED_PHASES, STORED_PHASES[:-1]):
        raise BadInputError(f"{path} has phases {header['phases']}, expected {list(STORED_PHASES)}")
    return RoutingCounts(
        ids=tuple(header["ids"]),
        layers=tuple(header["layers"]),
        experts_per_token=header["experts_per_token"],
        counts=file.get_tensor("counts"),
        tokens=file.get_tensor("tokens"),
        mass=file.get_tensor("mass") if "mass" in file.keys() else None,  # noqa: SIM118 (not a mapping)
    )
