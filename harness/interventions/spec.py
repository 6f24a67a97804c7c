"""The YAML files of baselines/: one specification each, of the kind that it names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from harness.base.content import content_folder, yaml_files_by_name
from harness.base.errors import BadInputError, nearest
from harness.base.files import read_mapping
from harness.base.plugins import readable
from harness.base.schema import require_file_name, validated
from harness.interventions.base import INTERVENTIONS, Intervention

BASE = "base"
ZOO: Literal["zoo"] = "zoo"
"""The name that stands for all published methods (baselines/zoo/) among baselines."""


def list_variants(include: Sequence[Path] = ()) -> dict[str, Intervention]:
    """Return all specifications by name; a file of `include` replaces ours of the same name.

    Raises:
        BadInputError: as `read_variant`.
    """
    return readable(yaml_files_by_name("baselines", include), read_variant)


def expand(names: Sequence[str], include: Sequence[Path] = ()) -> list[str]:
    """Return the names of baselines with all published methods in place of `zoo`, where no file has that name."""
    if ZOO not in names or ZOO in yaml_files_by_name("baselines", include):
        return list(names)
    methods = sorted(path.stem for path in content_folder(ZOO).glob("*.yaml"))
    return [each for name in names for each in (methods if name == ZOO else [name])]


def find_variant(name: str, include: Sequence[Path] = (), kind: str = "baseline") -> Intervention:
    """Return one specification.

    Raises:
        BadInputError: there is none of this name (the nearest is offered), or its file is wrong.
    """
    files = yaml_files_by_name("baselines", include)
    if name not in files:
        raise BadInputError(f"unknown {kind} '{name}': {nearest(name, files)}")
    return read_variant(files[name])


def compared(
    given: str, trust_remote_code: bool = False, trust_remote_tokenizer: bool = False
) -> Intervention:
    """Return the specification of what `harness compare` is given beside its base.

    Args:
        given: a folder with the file that a kind is known by (`Intervention.known_by`), or a model: a checkpoint folder
            or a hub id.
        trust_remote_code: let a model's own code run.
        trust_remote_tokenizer: let that of its tokenizer run.
    """
    path = Path(given).expanduser()
    common = {"name": name_of(path.name)}
    for name, kind in INTERVENTIONS.working():
        if kind.known_by is not None and (path / kind.known_by).is_file():
            about = {"intervention": name, "description": f"The {name} in {given}, put into base."}
            return validated(common | about | {"path": path.absolute()}, given, kind)
    about = {"intervention": "checkpoint", "description": f"Another model: {given}."}
    trust = {
        "trust_remote_code": trust_remote_code,
        "trust_remote_tokenizer": trust_remote_tokenizer,
    }
    spec = validated(common | about | trust | {"model": given}, given, INTERVENTIONS.get("checkpoint"))
    return spec.located(Path()) if path.is_dir() else spec


def name_of(text: str) -> str:
    """Return a variant's name made of the name of a folder or model; base is another's."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")
    return name if re.match("[A-Za-z]", name) and name != BASE else f"variant-{name}".rstrip("-")


def read_variant(path: Path) -> Intervention:
    """Read one specification.

    Raises:
        BadInputError: the kind is unknown, a field is missing, wrong or not the kind's own, or the file is not called
            like its variant.
    """
    content = read_mapping(path)
    kind = content.get("intervention")
    if not isinstance(kind, str):
        # Any kind says what is wrong with the field, and with the others that all have.
        return validated(content, path, INTERVENTIONS.get("none"))
    if kind not in INTERVENTIONS:
        raise BadInputError(
            f"{path}: intervention: unknown intervention kind '{kind}', {nearest(kind, INTERVENTIONS)}"
        )
    spec: Intervention = validated(content, path, INTERVENTIONS.get(kind))
    require_file_name(path, spec.name)
    return spec.located(path.parent)


def recorded(record: Mapping[str, Any]) -> Intervention | None:
    """Return the specification of which run.json keeps this record.

    None where an earlier version kept none, or where the kind is an extension that is not installed here.
    """
    name = record.get("intervention")
    if name not in INTERVENTIONS:
        return None
    kind = INTERVENTIONS.get(str(name))
    return kind.model_validate({field: record[field] for field in kind.model_fields if field in record})
