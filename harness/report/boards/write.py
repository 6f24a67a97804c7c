"""Making leaderboards once, or again whenever a run is added."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.files import write_text
from harness.report.boards.boards import GroupBy, build_boards
from harness.report.boards.entries import read_entries
from harness.report.boards.show import as_csv, as_html, as_json, as_markdown, print_boards
from harness.runs.layout import Layout, run_folders


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a leaderboard goes, and how it is ordered; `quiet` prints nothing."""

    html: Path | None = None
    markdown: Path | None = None
    csv: Path | None = None
    as_json: bool = False
    group_by: GroupBy = "model"
    sort: str | None = None
    quiet: bool = False


def write_once(places: Sequence[Path], outputs: Outputs) -> None:
    """Read the runs and write every output.

    Raises:
        BadInputError: see `read_entries` and `build_boards`.
    """
    entries, left_out = read_entries(places)
    boards = build_boards(entries, outputs.group_by, outputs.sort)
    # All are made before any is written.
    pages: dict[Path, str] = {}
    if outputs.html is not None:
        pages[outputs.html] = as_html(boards, left_out, outputs.html)
    if outputs.markdown is not None:
        pages[outputs.markdown] = as_markdown(boards, left_out)
    if outputs.csv is not None:
        pages[outputs.csv] = as_csv(boards)
    for path, text in pages.items():
        write_text(path, text)
    if outputs.quiet:
        return
    if outputs.as_json:
        print(json.dumps(as_json(boards, left_out), ensure_ascii=False))
    else:
        print_boards(boards, left_out)


def keep_writing(places: Sequence[Path], outputs: Outputs, seconds: float) -> None:
    """Write anew whenever a summary appears, changes or goes, or its run is made anew, until interrupted."""
    seen: frozenset[tuple[str, int, bool]] | None = None
    try:
        while True:
            now = _state(places)
            if now != seen and now:
                write_once(places, outputs)
            seen = now
            time.sleep(seconds)
    except KeyboardInterrupt:
        return


def _state(places: Sequence[Path]) -> frozenset[tuple[str, int, bool]]:
    """Return each summary with its time and whether its run was started again since."""
    folders = [Layout(each) for place in places for each in (place, *run_folders(place))]
    return frozenset(
        (str(files.folder), time, files.run.is_file() and files.run.stat().st_mtime_ns > time)
        for files in folders
        if files.summary.is_file()
        for time in [files.summary.stat().st_mtime_ns]
    )
