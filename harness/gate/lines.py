"""Where gates are in their file, for code scanning and annotations."""

from __future__ import annotations

from pathlib import Path

import yaml


def gate_lines(path: Path) -> dict[str, int]:
    """Return the line of each gate's name; one that comes through an anchor is left out."""
    document = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    assert isinstance(document, yaml.MappingNode)  # `check` has read it
    gates = next(value for key, value in document.value if key.value == "gates")
    return {
        value.value: value.start_mark.line + 1
        for gate in gates.value
        for key, value in gate.value
        if key.value == "name"
    }
