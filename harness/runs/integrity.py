"""Whether a run folder is still what the run left: every file against manifest.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from harness.base.errors import BadInputError
from harness.base.files import sha256
from harness.base.schema import validated
from harness.runs.layout import MANIFEST, Layout, is_unfinished

_REMEDY = "run the command in run.json again on this folder to have it made anew"


_MISSING = "is missing"


class FileRecord(BaseModel):
    """One file of the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    size: int = Field(ge=0)
    """Its bytes."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """The hex digest of its content."""


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    files: dict[str, FileRecord]


class _Damage(NamedTuple):
    """One file that is not what the manifest says; `what` reads on from its name."""

    file: str
    what: str


def read_manifest(run: Path) -> dict[str, FileRecord]:
    """Read RUN/manifest.json.

    Raises:
        BadInputError: it is missing, or is not exactly what a run writes.
    """
    path = Layout(run).manifest
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file; expected the folder of a finished run") from None
    except NotADirectoryError:
        raise BadInputError(f"{run}: is a file; expected the folder of a finished run") from None
    except ValueError as error:
        raise BadInputError(f"{path}: not valid JSON ({error}): it was cut off or changed") from None
    manifest = validated(content, path, _Manifest)
    # A change that leaves the JSON valid would else go unseen, such as a key given twice.
    if text != json.dumps(content, indent=2, ensure_ascii=False) + "\n":
        raise BadInputError(f"{path}: changed since the run wrote it; {_REMEDY}")
    return manifest.files


def verify_run(run: Path, but_for: Callable[[str], bool] = lambda name: False) -> dict[str, FileRecord]:
    """Check every file of a run folder, whole, against its manifest.

    Args:
        run: the folder.
        but_for: names, relative to the folder, that are passed over.

    Returns:
        The manifest's files by name.

    Raises:
        BadInputError: a file is missing, cut off, changed or not listed.
    """
    listed = read_manifest(run)
    there = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    _refuse(run, _damages(run, {name: record for name, record in listed.items() if not but_for(name)}))
    extra = sorted(
        name for name in there - {MANIFEST} - set(listed) if not is_unfinished(name) and not but_for(name)
    )
    _refuse(run, (_Damage(name, "is not in manifest.json: no stage of the run wrote it") for name in extra))
    return listed


def verify_files(run: Path, names: Iterable[str]) -> dict[str, FileRecord]:
    """Check some files of a run folder against its manifest; the others are not read.

    Returns:
        The manifest's files by name.

    Raises:
        BadInputError: the manifest is damaged, or one of the files is, or is not listed.
    """
    listed = read_manifest(run)
    for name in names:
        if name not in listed:
            _refuse(run, [_Damage(name, "is not in manifest.json")])
        _refuse(run, _damages(run, {name: listed[name]}))
    return listed


def _damages(run: Path, listed: Mapping[str, FileRecord]) -> Iterable[_Damage]:
    """Yield the listed files that are not what the manifest says."""
    for name, record in listed.items():
        path = run / name
        if not path.is_file():
            yield _Damage(name, _MISSING)
        elif (size := path.stat().st_size) < record.size:
            yield _Damage(name, f"was cut off: it has {size} bytes, the run wrote {record.size}")
        elif size != record.size or sha256(path) != record.sha256:
            yield _Damage(name, "was changed: its content is not what the run wrote")


def _refuse(run: Path, found: Iterable[_Damage]) -> None:
    broken = list(found)
    if broken:
        first = broken[0]
        more = f" (and {len(broken) - 1} more files)" if len(broken) > 1 else ""
        lost = all(each.what == _MISSING and Layout(run).is_made_of_others(each.file) for each in broken)
        remedy = f"`harness measure {run}` makes it again from the other files" if lost else _REMEDY
        raise BadInputError(f"{run}: {first.file} {first.what}{more}; {remedy}")
