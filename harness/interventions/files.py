"""What the kinds that read a file or folder have in common: where it is, and that only its content counts."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from harness.interventions.base import FOR_PEOPLE, Intervention


class FileIntervention(Intervention):
    """An intervention that a file or folder holds."""

    path: Path
    """The file or folder; a relative path starts from the folder of the specification's own file."""

    def located(self, folder: Path) -> Self:
        """Return the specification with a whole path."""
        return self.model_copy(update={"path": (folder / self.path.expanduser()).absolute()})

    def fingerprint(self) -> object:
        """Return the kind's own fields and what the file holds, wherever it is."""
        return {**self.model_dump(mode="json", exclude=FOR_PEOPLE | {"path"}), **self.content()}
