"""Copying a checkpoint's folder: every file, except those that would contradict the copy, by name and reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.models.weights import INDEX, weight_files

README = "README.md"
# Numbers in other formats or layouts; what an index names comes along, whatever it is called.
_WEIGHTS = (
    *(
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".gguf",
        ".ggml",
        ".h5",
        ".msgpack",
        ".onnx",
        ".onnx_data",
    ),
    *(".ot", ".npz", ".npy", ".mlmodel", ".tflite", ".nemo", ".pkl", ".pickle", ".index.json"),
)
# Of programs that fetched the folder: git holds every weight once more.
TOOLS = (".git", ".cache", ".ipynb_checkpoints", "__pycache__")


def is_weights(name: str) -> bool:
    """Say whether a file holds weights, of whatever format, or names the files that do."""
    return name.lower().endswith(_WEIGHTS)


class Contents(NamedTuple):
    """What is in a checkpoint's folder.

    Attributes:
        weights: the files that hold the weights.
        beside: all others that come along, by path within the folder.
        left_out: those that do not, with the reason.
    """

    weights: list[str]
    beside: list[str]
    left_out: Mapping[str, str]


def contents(folder: Path) -> Contents:
    """Sort a checkpoint's files into those that a changed copy has and those that it must not have.

    Raises:
        BadInputError: it holds no safetensors weights.
    """
    weights, beside, left_out = weight_files(folder), [], {}
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder)
        for name in sorted(folders):
            path = (inside / name).as_posix()
            if name in TOOLS:
                left_out[f"{path}/"] = "of the program that fetched or ran the base"
            elif (folder / path).is_symlink():
                left_out[f"{path}/"] = "a link to another folder"
        folders[:] = sorted(name for name in folders if name not in TOOLS)
        for name in sorted(files):
            path = (inside / name).as_posix()
            if path in weights:
                continue
            if path == README:
                left_out[path] = "describes the base; a card of this checkpoint takes its place"
            elif path != INDEX and is_weights(name):
                left_out[path] = "may hold the base's experts"
            elif not (folder / path).is_file():
                left_out[path] = "no file, or a link to none"
            else:
                beside.append(path)
    return Contents(weights, beside, left_out)


def copy_checkpoint(
    source: Path, out: Path, found: Contents, chunk: int, advance: Callable[[int], None] | None
) -> None:
    """Copy the files of a checkpoint that come along.

    Args:
        source: folder of the checkpoint.
        out: folder to write.
        found: in the source.
        chunk: bytes to read at a time.
        advance: called with the bytes of weights that were copied.
    """
    for name in found.beside:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, out / name)
    for name in found.weights:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        with (source / name).open("rb") as old, (out / name).open("wb") as new:
            while data := old.read(chunk):
                new.write(data)
                if advance is not None:
                    advance(len(data))
