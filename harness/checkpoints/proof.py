"""Checkpoints on disk: their identity, and the proof that training changed nothing but the trained experts.

The proof reads both checkpoints back from disk and compares the stored bytes, so that a NaN equals itself and -0.0
is not 0.0. It recognises experts by their tensors' names, one tensor per expert (`...experts.7.up_proj.weight`)
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
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import BadInputError, HarnessError
from harness.base.files import sha256
from harness.models.auto import load_weights
from harness.models.weights import Place, places, weight_files

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
    """The differences between two checkpoints.

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
        BadInputError: a folder holds no safetensors weights, or a file is missing or not whole.
        HarnessError: the two have no tensor in common.
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
    """Compare two checkpoints on disk, with one tensor of each in memory at a time.

    Where the tensors' names differ, because the two were written by different programs or versions, both are
    loaded by transformers and written with the names that they have in memory.

    Raises:
        BadInputError: a folder holds no safetensors weights, or a file is missing or not whole.
        HarnessError: the two have no tensor in common.
    """
    old, new = places(base), places(merged)
    missing: set[str] = set()
    added: set[str] = set()
    converted = old.keys() != new.keys()
    with ExitStack() as stack:
        if converted:
            # Beside the merged model, where there is room for a model.
            room = tempfile.TemporaryDirectory(prefix=".compare-", dir=merged.absolute().parent)
            folder = Path(stack.enter_context(room))
            lacked, ignored = _rewrite(base, folder / "base")
            lacked_now, ignored_now = _rewrite(merged, folder / "merged")
            missing, added = lacked_now - lacked, ignored_now - ignored
            old, new = places(folder / "base"), places(folder / "merged")
        shared = old.keys() & new.keys()
        if not shared:
            raise HarnessError(f"{base} and {merged} have no tensor in common: not the same kind of model")
        missing |= old.keys() - new.keys()
        added |= new.keys() - old.keys()
        others = [f"{name}: missing from the merged model" for name in sorted(missing)]
        others += [f"{name}: not in the base model" for name in sorted(added)]
        experts: dict[ExpertKey, list[str]] = {}
        for name in sorted(shared - missing):
            was, now = old[name], new[name]
            if (was.dtype, was.shape) != (now.dtype, now.shape):
                others.append(f"{name}: was {was.kind}, is {now.kind}")
                continue
            for key in experts_that_differ(name, was, now):
                if key is None:
                    others.append(f"{name}: differs")
                else:
                    experts.setdefault(key, []).append(name)
    named = {key: tuple(names) for key, names in experts.items()}
    return CheckpointDifference(named, tuple(others), len(shared), converted)


def model_fingerprint(path: Path) -> str:
    """Return the identity of a checkpoint: sha256 over its weights, configuration, tokenizer and chat template.

    Files are hashed once per process, as long as their size and time stay the same.

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

    A delta belongs to these: another chat template or a README beside the weights does not change its base.

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


def _rewrite(source: Path, folder: Path) -> tuple[set[str], set[str]]:
    """Write a checkpoint with the names that its tensors have in memory.

    Returns:
        Names that it lacked, for which transformers made up values, and names that transformers has no place for.
    """
    model, report = load_weights(source)
    model.save_pretrained(folder, save_original_format=False)
    return set(report["missing_keys"]), set(report["unexpected_keys"])


def experts_that_differ(name: str, old: Place, new: Place) -> Iterator[ExpertKey | None]:
    """Yield the experts whose part of a tensor differs, or None for a tensor that is no expert's."""
    layers = _LAYER.findall(name)
    one = _ONE_EXPERT.search(name)
    if layers and one is None and _ALL_EXPERTS.search(name) and len(old.shape) >= 2:
        for expert in range(old.shape[0]):
            if old.row(expert).read_bytes() != new.row(expert).read_bytes():
                yield int(layers[-1]), expert
    elif old.read_bytes() != new.read_bytes():
        yield (int(layers[-1]), int(one[1])) if layers and one else None
