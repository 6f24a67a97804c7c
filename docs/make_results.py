"""Put a run's finding, leaderboard and comparisons into a results page, between its markers.

    python docs/make_results.py RUN docs/results/PAGE.md

The block names the command, the machine, the date and the time of every stage, so that each figure stands beside
what made it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from pathlib import Path

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


def sections(report: str, *titles: str) -> str:
    """Return what a run found, from report.md, and some of its folded sections under headings."""
    finding, *rest = report.split("\n<details><summary>")
    bodies = {
        title: body.partition("</details>")[0]
        for title, _, body in (part.partition("</summary>") for part in rest)
    }
    parts = [finding.partition("\n")[2].strip()]
    parts += [f"### {title}\n\n{bodies[title].strip()}" for title in titles if title in bodies]
    return "\n\n".join(parts)


def block(run: Path) -> str:
    """Return what goes between the markers."""
    state = json.loads((run / "run.json").read_text(encoding="utf-8"))
    report = (run / "report.md").read_text(encoding="utf-8")
    versions = ", ".join(f"{name} {version}" for name, version in state["versions"].items())
    seconds = sum(stage["seconds"] for stage in state["stages"].values())
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
            sections(report, "All variants", "Comparisons", "Other measurements", "Time"),
            END,
        ]
    )


def main() -> None:
    """Rewrite the block of a page."""
    run, page = Path(sys.argv[1]), Path(sys.argv[2])
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{block(run)}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
