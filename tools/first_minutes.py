"""Times what a newcomer does: the README's commands, and each step of the tutorial, as they are written there.

    python -m tools.first_minutes           # prints both tables
    python -m tools.first_minutes --write   # and puts them between the markers of docs/tutorial.md

Each block runs in a shell of its own, in one empty folder, without network. Installing and downloading are left out. On
a machine that does other things too, the CPU time says more than the time on the clock.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

from tools.markdown import table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial.md"

# What the README shows, with the demo and copies of it in place of models from the hub.
NEWCOMER = {
    "`harness doctor demo`": "harness doctor demo",
    "the demo": "harness run --intervention unsafe_experts --output runs/demo",
    "your model (a copy of the demo), first a dry run": (
        "cp -r $DEMO my-model && harness doctor my-model && "
        "harness run --model my-model --tasks demo_harmful,demo_benign --baselines random_experts "
        "--capability none --dry-run && "
        "harness run --model my-model --tasks demo_harmful,demo_benign --baselines random_experts "
        "--capability none --save-model --output runs/mine"
    ),
    "comparing two checkpoints": (
        "harness compare my-model runs/mine/variants/unsafe_experts/model --tasks demo_harmful,demo_benign "
        "--capability none --output runs/compared && harness report runs/compared"
    ),
}


class Seconds(NamedTuple):
    """What a step took."""

    clock: float
    cpu: float


def steps_of(tutorial: str) -> dict[str, str]:
    """Return the commands of each numbered step: its shell blocks, and its Python ones as scripts."""
    steps = {}
    for title, body in re.findall(r"^## (\d\. .+?)\n(.*?)(?=^## |\Z)", tutorial, re.DOTALL | re.MULTILINE):
        blocks = re.findall(r"^```(bash|python)\n(.*?)^```", body, re.DOTALL | re.MULTILINE)
        steps[title.lower()] = "\n".join(_shell(language, text) for language, text in blocks)
    return steps


def _shell(language: str, text: str) -> str:
    return text if language == "bash" else f"python - <<'PYTHON'\n{text}PYTHON"


def timed(steps: Mapping[str, str], folder: Path) -> Iterator[tuple[str, Seconds]]:
    """Do steps one after another in a folder and yield what each took.

    Raises:
        CalledProcessError: one of their commands failed.
    """
    for name, script in steps.items():
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        environment = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        environment |= {"DEMO": str(ROOT / "harness" / "models" / "demo"), "HF_HUB_OFFLINE": "1"}
        subprocess.run(
            ["bash", "-e", "-c", script], cwd=folder, env=environment, check=True, stdout=sys.stderr
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = sum(getattr(after, part) - getattr(before, part) for part in ("ru_utime", "ru_stime"))
        yield name, Seconds(time.monotonic() - began, cpu)


def times_table(times: Mapping[str, Seconds], kind: str, load: float) -> str:
    """Return times as a table with the machine, the load that it had before them, and the date below it."""
    rows = [[name, f"{each.clock:.0f}", f"{each.cpu:.0f}"] for name, each in times.items()]
    total = [f"{sum(getattr(each, part) for each in times.values()):.0f}" for part in Seconds._fields]
    rows.append(["all", *total])
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return (
        f"{table([kind, 'seconds', 'CPU seconds'], rows)}\n\n"
        f"({_cpu()}, {len(os.sched_getaffinity(0))} cores, load average before: {load:.1f}; "
        f"OMP_NUM_THREADS={threads}, {date.today().isoformat()}.)"
    )


def _cpu() -> str:
    names = re.findall(
        r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    return names[0] if names else platform.processor()


def updated(page: str, name: str, times: str) -> str:
    """Return a page with other times between the markers of a name."""
    begin, end = f"<!-- times: {name} -->\n", f"\n<!-- /times: {name} -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}{times}{end}{rest.partition(end)[2]}"


def commands_in(folder: Path) -> None:
    """Put `harness` and `python` of this interpreter into a folder's bin/."""
    place = folder / "bin"
    place.mkdir(parents=True)
    for name, words in {"harness": f"{sys.executable} -m harness", "python": sys.executable}.items():
        (place / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
        (place / name).chmod(stat.S_IRWXU)


def main() -> None:
    """Time both, print and perhaps write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    parser.add_argument("--only", choices=["readme", "tutorial"])
    chosen = parser.parse_args()
    parts = {"readme": NEWCOMER, "tutorial": steps_of(PAGE.read_text(encoding="utf-8"))}
    for name, steps in parts.items():
        if chosen.only not in (None, name):
            continue
        folder = Path(tempfile.mkdtemp())
        commands_in(folder)
        load = os.getloadavg()[0]
        times = times_table(dict(timed(steps, folder)), "step", load)
        shutil.rmtree(folder)
        print(f"{name}\n\n{times}\n")
        if chosen.write:
            page = updated(PAGE.read_text(encoding="utf-8"), name, times)
            PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
