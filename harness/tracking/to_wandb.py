"""Weights & Biases. Its own variables say where to: WANDB_MODE=offline, WANDB_PROJECT, WANDB_DIR and so on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.tracking.base import PROJECT

if TYPE_CHECKING:
    from harness.tracking.base import About, Shown

_LONGEST = 300.0
"""Seconds that the end of a run waits for what is not sent yet."""


class Wandb:
    """One run there, continued under the run's own id."""

    package = "wandb"

    def __init__(self) -> None:
        self._run: Any = None
        self._axes: set[str] = set()

    def begin(self, about: About) -> str | None:
        """Begin the run; neither code nor what the terminal shows is sent."""
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=about.id,
            name=about.name,
            config=dict(about.settings),
            resume="allow",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                # Where the network went away it would try for ever; what was not sent is kept for `wandb sync`.
                finish_timeout=_LONGEST,
                finish_timeout_raises=True,
            ),
        )
        # An offline run is a folder, for `wandb sync`.
        return str(Path(self._run.dir).parent) if self._run.offline else self._run.url

    def log(self, values: Mapping[str, float]) -> None:
        """Log the values; a training's are drawn over its own steps."""
        for name in values:
            if name.endswith("/step") and name not in self._axes:
                self._axes.add(name)
                self._run.define_metric(f"{name.removesuffix('step')}*", step_metric=name)
        self._run.log(dict(values))

    def results(self, figures: Mapping[str, float], tables: Mapping[str, Shown]) -> None:
        """Put figures into the run's summary, and log the tables."""
        import wandb

        self._run.summary.update(dict(figures))
        for name, table in tables.items():
            rows = [list(row) for row in table.rows]
            shown = wandb.Table(columns=list(table.columns), data=rows, allow_mixed_types=True)
            self._run.log({name: shown})

    def report(self, page: Path) -> None:
        """Keep the report as an artifact."""
        import wandb

        artifact = wandb.Artifact(f"report-{self._run.id}", type="report")
        artifact.add_file(str(page), name=page.name)
        self._run.log_artifact(artifact)

    def end(self, failed: bool) -> None:
        """Finish the run."""
        self._run.finish(exit_code=int(failed))
