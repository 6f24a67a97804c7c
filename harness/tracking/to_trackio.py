"""trackio, which keeps runs on this machine. Its own variables say where to: TRACKIO_DIR, TRACKIO_SPACE_ID, ..."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from harness.tracking.base import PROJECT

if TYPE_CHECKING:
    from harness.tracking.base import About, Shown


class Trackio:
    """One run there, continued under its name, which has the run's own id in it."""

    package = "trackio"

    def __init__(self) -> None:
        self._id = ""

    def begin(self, about: About) -> str | None:
        """Begin the run; no dashboard is opened."""
        import trackio

        # It never raises where it cannot write, and only warns of each thing that it loses.
        trackio.TRACKIO_DIR.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=trackio.TRACKIO_DIR):
            pass
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._id = about.id
        name = f"{about.name}-{about.id}"
        trackio.init(project, name=name, config=dict(about.settings), resume="allow", embed=False)
        return f"trackio show --project {project}"

    def log(self, values: Mapping[str, float]) -> None:
        """Log the values."""
        import trackio

        trackio.log(dict(values))

    def results(self, figures: Mapping[str, float], tables: Mapping[str, Shown]) -> None:
        """Log figures and tables together."""
        import trackio

        shown = {
            name: trackio.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
            for name, table in tables.items()
        }
        trackio.log({**figures, **shown})

    def report(self, page: Path) -> None:
        """Keep the report as an artifact."""
        import trackio

        trackio.log_artifact(str(page), name=f"report-{self._id}", type="report")

    def end(self, failed: bool) -> None:
        """Finish the run."""
        import trackio

        trackio.finish()
