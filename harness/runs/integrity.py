"""Whether a run folder is still what the run left: every file against manifest.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from harness.base.errors import BadInputError
from harness.base.files import sha256
from harness.base.schema import read_json_as
from harness.runs.layout import MANIFEST, Layout, is_unfinished, not_there

_REMEDY = "run the command in run.json again on this folder to have it made anew"


_MISSING = "is missing"


class MadeAnewError(BadInputError):
    """A run was started again and has not come to its end: its summary is of what it was before."""

    def __init__(self, run: Path) -> None:
        super().__init__(
            f"{run} is being made anew and has no figures until its command ends; if it was stopped, run it again"
        )


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


def read_manifest(run: Path) -> dict[str, FileRecord]:
    """Read RUN/manifest.json.

    Raises:
        BadInputError: it is missing, or is not exactly what a run writes.
    """
    path = Layout(run).manifest
    if not path.is_file():
        raise not_there(path)
    manifest = read_json_as(path, _Manifest)
    # A change that leaves the JSON valid would otherwise go unseen, such as a key given twice.
    if path.read_text(encoding="utf-8") != _text(manifest.files):
        raise BadInputError(f"{path}: changed since the run wrote it; {_REMEDY}")
    return manifest.files


def _text(files: Mapping[str, FileRecord]) -> str:
    """Return the file's text as `write_json` writes it, whose indentation runs in pure Python."""
    rows = [
        f'    {encode_basestring(name)}: {{\n      "size": {record.size},\n'
        f'      "sha256": "{record.sha256}"\n    }}'
        for name, record in files.items()
    ]
    return '{\n  "files": {\n' + ",\n".join(rows) + "\n  }\n}\n" if rows else '{\n  "files": {}\n}\n'


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
    _refuse(run, dict.fromkeys(extra, "is not in manifest.json: no stage of the run wrote it"))
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
            _refuse(run, {name: "is not in manifest.json"})
        _refuse(run, _damages(run, {name: listed[name]}))
    return listed


def _damages(run: Path, listed: Mapping[str, FileRecord]) -> dict[str, str]:
    """Return the listed files that differ from the manifest, each with its damage as it reads on from the name."""
    damages = {}
    for name, record in listed.items():
        path = run / name
        if not path.is_file():
            damages[name] = _MISSING
        elif (size := path.stat().st_size) < record.size:
            damages[name] = f"was cut off: it has {size} bytes, the run wrote {record.size}"
        elif size != record.size or sha256(path) != record.sha256:
            damages[name] = "was changed: its content is not what the run wrote"
    return damages


def _refuse(run: Path, damages: Mapping[str, str]) -> None:
    for name, damage in damages.items():
        more = f" (and {len(damages) - 1} more files)" if len(damages) > 1 else ""
        lost = all(each == _MISSING for each in damages.values())
        is_made_again = lost and all(map(Layout(run).is_made_of_others, damages))
        remedy = f"`harness measure {run}` makes it again from the other files" if is_made_again else _REMEDY
        raise BadInputError(f"{run}: {name} {damage}{more}; {remedy}")
