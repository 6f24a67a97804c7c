"""Checkpoints on disk: their identity, and the proof that training changed nothing but the trained experts.

The proof reads both checkpoints back from disk and compares the stored bytes, so that a NaN equals itself and -0.0
is not 0.0. It recognises experts by their tensors' names, one tensor an expert (`...experts.7.up_proj.weight`)
or one tensor for all (`...experts.gate_up_proj`, `...experts.fc1.weight`, the expert on dimension 0). A tensor that
it can't assign to an expert must be equal: an unknown layout makes the proof fail, never pass.
"""

from __future__ import annotations

import functools
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, HarnessError
from harness.base.files import sha256
from harness.models.auto import load_weights
from harness.models.weights import weight_files

if TYPE_CHECKING:
    import torch

_LAYER = re.compile(r"(?:^|\.)(?:layers|blocks)\.(\d+)\.")
_ONE_EXPERT = re.compile(r"\.experts\.(\d+)\.")
_ALL_EXPERTS = re.compile(
    r"\.experts\.(?:[^.\d][^.]*|fc[12]\.weight)$|\.block_sparse_moe\.(?:input|output)_linear\.weight$"
)
_IDENTITY = (
    *("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "*.py"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model"),
    *("chat_template*", "additional_chat_templates/*"),
)

ExpertKey = tuple[int, int]
"""True layer index and expert number."""


@dataclass(frozen=True, slots=True)
class CheckpointDifference:
    """What differs between two checkpoints.

    Attributes:
        experts: names of the differing tensors, by (layer, expert).
        others: one line for each other tensor that differs, is missing, was added, or has another dtype or shape.
        compared: number of tensors that both have.
        converted: whether both had to be rewritten by transformers to have the same tensor names.
    """

    experts: Mapping[ExpertKey, tuple[str, ...]]
    others: tuple[str, ...]
    compared: int
    converted: bool


@dataclass(frozen=True, slots=True)
class FrozenProof:
    """Whether everything but the trained experts is bit-identical.

    Attributes:
        unchanged: the verdict.
        violations: one line for each frozen tensor that changed.
        changed_experts: (layer, expert) of every expert that differs, sorted.
        unmoved_experts: trained experts that do not differ, sorted.
        compared: number of tensors compared.
    """

    unchanged: bool
    violations: tuple[str, ...]
    changed_experts: tuple[ExpertKey, ...]
    unmoved_experts: tuple[ExpertKey, ...]
    compared: int


def frozen_unchanged(base: Path, merged: Path, trained: Set[ExpertKey]) -> FrozenProof:
    """Compare a merged checkpoint with its base, tensor by tensor and expert by expert.

    Args:
        base: folder of the checkpoint that training started from.
        merged: folder of the checkpoint with the trained experts put in.
        trained: (layer, expert) of the experts that may differ.

    Raises:
        BadInputError: a folder holds no safetensors weights.
        HarnessError: a checkpoint is incomplete, or the two have no tensor in common.
    """
    difference = compare_checkpoints(base, merged)
    untrained = [
        f"{name}: differs, though layer {layer} expert {expert} was not trained"
        for (layer, expert), names in sorted(difference.experts.items())
        if (layer, expert) not in trained
        for name in names
    ]
    violations = (*difference.others, *untrained)
    return FrozenProof(
        unchanged=not violations,
        violations=violations,
        changed_experts=tuple(sorted(difference.experts)),
        unmoved_experts=tuple(sorted(trained - difference.experts.keys())),
        compared=difference.compared,
    )


def compare_checkpoints(base: Path, merged: Path) -> CheckpointDifference:
    """Compare two checkpoints on disk, one tensor in memory at a time.

    Where the tensors' names differ, because the two were written by different programs or versions, both are
    loaded by transformers and written with the names that they have in memory.

    Raises:
        BadInputError: a folder holds no safetensors weights.
        HarnessError: a checkpoint is incomplete, or the two have no tensor in common.
    """
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(_open(path)) for path in (base, merged))
        converted = ours.keys() != theirs.keys()
        missing: set[str] = set()
        added: set[str] = set()
        if converted:
            # Beside the merged model, where there is room for a model.
            place = tempfile.TemporaryDirectory(prefix=".compare-", dir=merged.absolute().parent)
            folder = Path(stack.enter_context(place))
            lacked, ignored = _rewrite(base, folder / "base")
            lacked_now, ignored_now = _rewrite(merged, folder / "merged")
            missing, added = lacked_now - lacked, ignored_now - ignored
            ours, theirs = (stack.enter_context(_open(folder / name)) for name in ("base", "merged"))
        shared = ours.keys() & theirs.keys()
        if not shared:
            raise HarnessError(f"{base} and {merged} have no tensor in common: not the same kind of model")
        experts: dict[ExpertKey, list[str]] = {}
        missing |= ours.keys() - theirs.keys()
        added |= theirs.keys() - ours.keys()
        others = [f"{name}: missing from the merged model" for name in sorted(missing)]
        others += [f"{name}: not in the base model" for name in sorted(added)]
        for name in sorted(shared - missing):
            first, second = (side[name].get_tensor(name) for side in (ours, theirs))
            if first.dtype != second.dtype or first.shape != second.shape:
                others.append(f"{name}: was {_kind(first)}, is {_kind(second)}")
                continue
            for key in experts_that_differ(name, first, second):
                if key is None:
                    others.append(f"{name}: differs")
                else:
                    experts.setdefault(key, []).append(name)
    named = {key: tuple(names) for key, names in experts.items()}
    return CheckpointDifference(named, tuple(others), len(shared), converted)


def model_fingerprint(path: Path) -> str:
    """Return the identity of a checkpoint: sha256 over its weights, configuration, tokenizer and chat template.

    Files are hashed once a process, as long as their size and time stay the same.

    Raises:
        BadInputError: the folder holds no config.json.
    """
    if not (path / "config.json").is_file():
        raise BadInputError(f"{path}: no config.json, expected the folder of a transformers checkpoint")
    return _of_files(
        path, sorted({file for pattern in _IDENTITY for file in path.glob(pattern) if file.is_file()})
    )


def weights_fingerprint(path: Path) -> str:
    """Return the identity of a checkpoint's weights alone: sha256 over its safetensors files.

    What a delta belongs to: another chat template or a README beside the weights makes no other base of them.

    Raises:
        BadInputError: the folder holds no safetensors weights.
        HarnessError: one of its files is missing.
    """
    files = [path / name for name in weight_files(path)]
    for file in files:
        if not file.is_file():
            raise HarnessError(f"{file}: not there, though the checkpoint's index names it")
    return _of_files(path, files)


def _of_files(folder: Path, files: list[Path]) -> str:
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_digest, files))
    lines = [
        f"{file.relative_to(folder).as_posix()} {digest}\n"
        for file, digest in zip(files, digests, strict=True)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest(file: Path) -> str:
    state = file.stat()
    return _cached_digest(file.resolve(), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _cached_digest(file: Path, _size: int, _mtime_ns: int) -> str:
    return sha256(file)


@contextmanager
def _open(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield, for each tensor's name, the open file that holds it."""
    from safetensors import SafetensorError, safe_open

    with ExitStack() as stack:
        tensors: dict[str, Any] = {}
        for name in weight_files(folder):
            try:
                file = stack.enter_context(safe_open(folder / name, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise HarnessError(f"{folder / name}: not a whole safetensors file ({error})") from error
            tensors.update(dict.fromkeys(file.keys(), file))
        yield tensors


def _rewrite(source: Path, folder: Path) -> tuple[set[str], set[str]]:
    """Write a checkpoint with the names that its tensors have in memory.

    Returns:
        Names that it lacked, for which transformers made up values, and names that transformers has no place for.
    """
    model, report = load_weights(source)
    model.save_pretrained(folder, save_original_format=False)
    return set(report["missing_keys"]), set(report["unexpected_keys"])


def experts_that_differ(name: str, first: torch.Tensor, second: torch.Tensor) -> Iterator[ExpertKey | None]:
    """Yield the experts whose part of a tensor differs, or None for a tensor that is no expert's."""
    layers = _LAYER.findall(name)
    one = _ONE_EXPERT.search(name)
    if layers and one is None and _ALL_EXPERTS.search(name) and first.ndim >= 2:
        for expert, (left, right) in enumerate(zip(first, second, strict=True)):
            if not _same_bytes(left, right):
                yield int(layers[-1]), expert
    elif not _same_bytes(first, second):
        yield (int(layers[-1]), int(one[1])) if layers and one else None


def _same_bytes(first: torch.Tensor, second: torch.Tensor) -> bool:
    import torch

    def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.contiguous().reshape(-1).view(torch.uint8)

    return torch.equal(as_bytes(first), as_bytes(second))


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
