"""Where the folders tasks/, baselines/ and reports/ are.

A wheel carries them as harness/_content/, a checkout reads them in place. Folders named with `--include`
come first, so a user's YAML file can stand in for one of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

Folder = Literal["tasks", "baselines", "reports"]

_PACKAGE = Path(__file__).resolve().parent


def content_folder(folder: Folder) -> Path:
    """Return the folder that this installation reads `folder` from."""
    carried = _PACKAGE / "_content" / folder
    return carried if carried.is_dir() else _PACKAGE.parent / folder


def yaml_files(folder: Folder, include: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield the YAML files of a folder, those of `include` first.

    An included folder may hold the files directly or in a sub-folder called like `folder`.
    """
    for place in [*include, *(path / folder for path in include), content_folder(folder)]:
        yield from sorted(place.glob("*.yaml"))
