"""Exporting a run: what goes into it, which formats there are, and files that do not overwrite others unasked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.base.errors import BadInputError
from harness.base.files import write_whole
from harness.base.registry import Registry, not_callable
from harness.export.tables import conversations, record_of, risk_diff
from harness.runs.captured import phase_of
from harness.runs.run import Run, read_run

if TYPE_CHECKING:
    import pandas as pd

    from harness.routing.counts import Record


class Export:
    """What is exported; a format reads of it what it needs.

    Args:
        run: the run; routing is read from it while it is written.
        phase: of the risk differences.

    Attributes:
        left_out: what a format leaves out, and why.
    """

    def __init__(self, run: Run, phase: str = "all") -> None:
        self.run = run
        self.phase = phase
        self.left_out: dict[str, str] = {}

    @cached_property
    def record(self) -> Record:
        """How much routing there is of every task."""
        return record_of(self.run)

    @cached_property
    def risk_diff(self) -> pd.DataFrame:
        """The guide's columns, the highest risk difference first."""
        return risk_diff(self.run, phase_of(self.run, self.phase))

    @cached_property
    def conversations(self) -> list[dict[str, Any]] | None:
        """The training examples as chat messages; None, and a reason in `left_out`, where the run made none."""
        rows = conversations(self.run)
        if rows is None:
            file = self.run.layout.examples.relative_to(self.run.path)
            self.left_out["sft_dataset"] = f"the run has no {file}: nothing was trained"
        return rows

    @property
    def model(self) -> str:
        """The model's name as file names have it: Qwen--Qwen3-30B-A3B."""
        return self.run.model.name.replace("/", "--")


class Written(NamedTuple):
    """The files that were written, and why others were not."""

    files: list[Path]
    left_out: dict[str, str]


Files = dict[str, Callable[[Path], None]]
"""File names, and what writes each."""

FORMATS: Registry[Callable[[Export], Files]] = Registry(
    "export format", "harness.export_formats", not_callable
)
FORMATS.add("guide", "harness.export.guide:files")
FORMATS.add("parquet", "harness.export.parquet:files")
FORMATS.add("inspect", "harness.inspect.write:files")


def export(
    run: Path, target: Path, form: str, phase: str | None = None, *, overwrite: bool = False
) -> Written:
    """Write what a run found into a folder, in one of the formats.

    Args:
        run: the folder of a run, which has selected experts unless the format is of answers alone.
        target: a folder outside it.
        form: the format's name.
        phase: of the risk differences; all tokens by default.
        overwrite: replace files of the same names.

    Raises:
        BadInputError: there is nothing to export, no such format, or a file is in the way; nothing was written.
    """
    files_of = FORMATS.get(form)
    source = read_run(run)
    if target.resolve().is_relative_to(run.resolve()):
        raise BadInputError(f"{target} is inside the run folder {run}: name a folder beside it")
    if target.exists() and not target.is_dir():
        raise BadInputError(f"{target} is a file: expected a folder")
    what = Export(source, phase or "all")
    if not source.layout.manifest.is_file():
        # What is missing of routing says more than that the run is not finished.
        _ = what.record
    source.verify()
    files = files_of(what)
    taken = [name for name in files if (target / name).exists()]
    if taken and not overwrite:
        raise BadInputError(
            f"{target / taken[0]} exists: name another folder, or add --force to overwrite it"
        )
    new = [target / name for name in files if not (target / name).exists()]
    try:
        for name, write in files.items():
            write_whole(target / name, write)
    except BaseException:
        # The same command would find some of them in its way.
        for path in new:
            path.unlink(missing_ok=True)
        raise
    return Written([target / name for name in files], what.left_out)
