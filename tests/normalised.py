"""Everything that the harness says of finished runs, as text files that differ only where what is said differs.

Times, ids, versions and the places of folders are taken out of a copy of the run before it is shown.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from harness.base.files import read_json, write_json
from harness.cli.main import main
from harness.report.conclusion import conclude
from harness.runs.run_folder import RunFolder
from harness.runs.summary import read_summary

WIDTH = "100"
_LONG_NUMBER = re.compile(r"(?<![\w.])\d+\.\d{8,}(e-?\d+)?|(?<![\w.])\d(\.\d+)?e-?\d+(?!\w)")
_FIXED = {"run_id": "RUN", "created": "2026-01-02T03:04:05+00:00", "harness_version": "0.0.0"}
_FIXED_IN_RECORD = {
    **_FIXED,
    "command": "harness run",
    "path": "MODEL",
    "origin": "TASKS",
    "device": "DEVICE",
}
# What measuring a run starts from; parquet and safetensors have no one form in bytes.
_RAW = (
    "responses/*.jsonl",
    "verdicts/*.jsonl",
    "capability.json",
    "drift.json",
    "routes.json",
    "proof.json",
    "selection.json",
)


def normalised(run: Path, gates: Path) -> dict[str, str]:
    """Return what summary, reports, tables, terminal and gates say of one run, by file name."""
    with _copies([run]) as (copy,):
        shown = _said(copy, "report", str(copy))
        files = {
            "summary.json": (copy / "summary.json").read_text(),
            "report.md": (copy / "report.md").read_text(),
            "report.html.txt": visible_text((copy / "report.html").read_text()),
            "terminal.txt": shown,
            "conclusion.txt": "\n".join(conclude(read_summary(copy))) + "\n",
            "gates.json": _as_json(_said(copy, "check", str(copy), "--gates", str(gates), "--json")),
        }
        files |= {
            path.relative_to(copy).as_posix(): path.read_text()
            for path in sorted((copy / "tables").iterdir())
        }
        return {name: _everywhere_alike(text, copy.parent, gates.parent) for name, text in files.items()}


def leaderboard(runs: Sequence[Path]) -> dict[str, str]:
    """Return the leaderboard of several runs, for the terminal and for programs, by file name."""
    with _copies(runs) as copies:
        places = [str(copy) for copy in copies]
        files = {
            "leaderboard.txt": _said(copies[0], "report", *places),
            "leaderboard.json": _as_json(_said(copies[0], "report", *places, "--json")),
        }
        return {name: _everywhere_alike(text, copies[0].parent) for name, text in files.items()}


def raw_files(run: Path) -> dict[str, str]:
    """Return a hash of each file that measuring starts from, as one text."""
    paths = sorted(path for pattern in _RAW for path in run.glob(f"variants/*/{pattern}"))
    rows = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}  {path.relative_to(run).as_posix()}"
        for path in paths
    ]
    return {"raw_files.txt": "\n".join(rows) + "\n"}


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Return a unified diff of two sets of files; "" where they are equal."""
    lines: list[str] = []
    for name in sorted({*before, *after}):
        old, new = (side[name].splitlines() if name in side else [] for side in (before, after))
        if (name in before) != (name in after):
            lines.append(f"only {'before' if name in before else 'after'}: {name}")
        lines += difflib.unified_diff(old, new, f"before/{name}", f"after/{name}", lineterm="")
    return "\n".join(lines)


def read_files(folder: Path) -> dict[str, str]:
    """Return the files of a folder as text, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a folder, in place of what it holds."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def visible_text(page: str) -> str:
    """Return the text that a page shows: a line per block, table row or line of preformatted text."""
    reader = _Visible()
    reader.feed(page)
    reader.close()
    reader.end_line()
    return "\n".join(reader.lines) + "\n"


class _Visible(HTMLParser):
    _HIDDEN = frozenset({"script", "style", "template"})
    # Whatever is not one of these begins and ends a line.
    _INLINE = frozenset(
        {"a", "abbr", "b", "br", "code", "em", "i", "kbd", "small", "span", "strong", "sub", "sup"}
    )
    _CELL = frozenset({"td", "th"})

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._parts: list[str] = []
        self._hidden = self._as_it_is = self._in_cell = 0

    def end_line(self) -> None:
        text = " ".join("".join(self._parts).split())
        self._parts.clear()
        if text:
            self.lines.append(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in self._HIDDEN
        self._as_it_is += tag == "pre"
        self._in_cell += tag in self._CELL
        self._end_block(tag)

    def handle_endtag(self, tag: str) -> None:
        self._end_block(tag)
        self._hidden -= tag in self._HIDDEN
        self._as_it_is -= tag == "pre"
        if tag in self._CELL:
            self._in_cell -= 1
            self._parts.append(" | ")

    def _end_block(self, tag: str) -> None:
        if self._in_cell:
            self._parts.append("" if tag in self._INLINE else " ")
        elif tag not in self._INLINE:
            self.end_line()

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._as_it_is:
            self.lines += [line.rstrip() for line in data.splitlines() if line.strip()]
        else:
            self._parts.append(data)


@contextlib.contextmanager
def _copies(runs: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield copies of runs without what differs from one making to the next."""
    with tempfile.TemporaryDirectory() as place:
        copies = []
        for number, run in enumerate(runs, 1):
            copy = shutil.copytree(run, Path(place) / f"run-{number}")
            for name, fixed in (("summary.json", _FIXED), ("run.json", _FIXED_IN_RECORD)):
                write_json(copy / name, _timeless(read_json(copy / name), fixed))
            RunFolder(copy).write_manifest()
            copies.append(copy)
        yield copies


def _timeless(content: Any, fixed: Mapping[str, str]) -> Any:
    if isinstance(content, list):
        return [_timeless(item, fixed) for item in content]
    if not isinstance(content, dict):
        return content
    found: dict[str, Any] = {}
    for key, value in content.items():
        if key == "seconds":
            found[key] = dict.fromkeys(value, 1.0) if isinstance(value, dict) else 1.0
        elif key == "versions":
            found[key] = dict.fromkeys(value, "0.0.0")
        elif key == "stages":
            found[key] = {
                stage: _timeless(row, {**fixed, "fingerprint": "FINGERPRINT"}) for stage, row in value.items()
            }
        elif key in fixed and isinstance(value, str):
            found[key] = fixed[key]
        else:
            found[key] = _timeless(value, fixed)
    return found


def _said(run: Path, *command: str) -> str:
    """Return what a command prints; a gate that fails is no error."""
    out = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        with contextlib.redirect_stdout(out):
            code = main(list(command))
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    assert code in (0, 3, 4), f"{' '.join(command)}: exit code {code}"
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _as_json(text: str) -> str:
    return json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


def _everywhere_alike(text: str, *places: Path) -> str:
    for place in places:
        # On a terminal a long path may be broken over lines.
        text = re.sub(r"\s*".join(map(re.escape, str(place))), "PLACE", text)
    # The last digits are the processor's.
    return _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.9g}", text)
