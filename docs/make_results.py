"""Put a run's finding into a results page, between its markers, and every figure beside it as CSV.

    python docs/make_results.py RUN docs/results/PAGE.md

The block names the command, the machine and the date, so that each figure stands beside what made it.
`data/PAGE-leaderboard.csv`, `-comparisons.csv`, `-measurements.csv` and `-seconds.csv` hold the rest.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from pathlib import Path

import harness

TABLES = ("leaderboard", "comparisons", "measurements", "seconds")
START, END = "<!-- run -->", "<!-- /run -->"


def machine() -> str:
    """Describe the processor, its cores and the memory."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8"))
        name = names[0] if names else name
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({name}), {memory:.0f} GiB of memory, {platform.system()}"


def finding(report: str) -> str:
    """Return what a run found: report.md down to its first folded section."""
    return report.partition("\n<details><summary>")[0].partition("\n")[2].strip()


def write_tables(run: Path, page: Path) -> list[Path]:
    """Write every figure of a run as CSV files beside a page, and return their paths."""
    data = page.parent / "data"
    data.mkdir(exist_ok=True)
    paths = {name: data / f"{page.stem}-{name}.csv" for name in TABLES}
    for name in ("leaderboard", "comparisons"):
        shutil.copyfile(run / "tables" / f"{name}.csv", paths[name])
    opened = harness.open(run)
    opened.measurements.to_csv(paths["measurements"], index=False)
    stages = opened.files.record.stages
    seconds = "".join(f"{name},{stage.seconds:.1f}\n" for name, stage in stages.items())
    paths["seconds"].write_text(f"stage,seconds\n{seconds}", encoding="utf-8")
    return list(paths.values())


def block(run: Path, tables: list[Path]) -> str:
    """Return what goes between the markers."""
    state = json.loads((run / "run.json").read_text(encoding="utf-8"))
    report = (run / "report.md").read_text(encoding="utf-8")
    versions = ", ".join(f"{name} {version}" for name, version in state["versions"].items())
    seconds = sum(stage["seconds"] for stage in state["stages"].values())
    links = ", ".join(f"[{path.stem.rpartition('-')[2]}](data/{path.name})" for path in tables)
    return "\n".join(
        [
            START,
            "```bash",
            re.sub(r" /\S*/", " ", state["command"]),
            "```",
            "",
            f"{state['created'][:10]}, {machine()}, device {state['device']}; {versions}. "
            f"Stages: {seconds:.0f} s in all.",
            "",
            finding(report),
            "",
            f"Every figure: {links}.",
            END,
        ]
    )


def main() -> None:
    """Rewrite the block of a page."""
    run, page = Path(sys.argv[1]), Path(sys.argv[2])
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{block(run, write_tables(run, page))}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
