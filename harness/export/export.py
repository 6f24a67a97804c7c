"""Exporting a run: what goes into it, which formats there are, and files that do not overwrite others unasked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Export:
    """What is exported.

    Attributes:
        run: the run; routing is read from it while it is written.
        record: how much routing there is of every task.
        risk_diff: the guide's columns, the highest risk difference first.
        conversations: the training examples as chat messages; None where the run made none.
    """

    run: Run
    record: Record
    risk_diff: pd.DataFrame
    conversations: list[dict[str, Any]] | None

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


def export(
    run: Path, target: Path, form: str, phase: str | None = None, *, overwrite: bool = False
) -> Written:
    """Write what a run found into a folder, in one of the formats.

    Args:
        run: the folder of a run that has selected experts.
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
    record = record_of(source)
    source.verify()
    what = Export(
        source,
        record,
        risk_diff(source, phase_of(source, phase or "all")),
        conversations(source),
    )
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
    left_out = {}
    if what.conversations is None:
        left_out["sft_dataset"] = (
            f"the run has no {source.layout.examples.relative_to(run)}: nothing was trained"
        )
    return Written([target / name for name in files], left_out)
