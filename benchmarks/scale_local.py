r"""Time and peak memory of large inputs on this machine, at growing sizes, and whether a step grows worse than linear.

    python benchmarks/scale_local.py --sizes 250,500,1000 --runs 20,40,80 --lines 10000,20000,40000
    python benchmarks/scale_local.py --suites 6250,12500,25000 --sizes 5000,10000,20000 \
        --runs 500,1000,2000 --lines 250000,500000,1000000
    python benchmarks/scale_local.py --suites= --sizes= --runs 500,1000,2000 --lines=        # leaderboards alone

Each step is a command of its own, so that its peak is its own. `run` answers three tasks of so many prompts with two
variants of the demo, two tokens each; `measure` and `report` read that run (20,000 prompts: 120,000 answers);
`leaderboard` reads so many copies of a run on 100 prompts per task; `plan` reads a data file of so many lines with
`--limit 100`.
Growth is the exponent between the smallest and the largest size, of the processor seconds beyond those of a command
that does nothing: 1 is linear. Near-duplicate groups, which `plan` and `run` need, may grow faster.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

WORST_GROWTH = 1.25
"""Above 1, since time on a shared machine is not exact."""
OF_A_BOARD = 100
"""Prompts per task of each run on a leaderboard."""


class Cost(NamedTuple):
    """What one command took: seconds, processor seconds and peak memory in bytes."""

    seconds: float
    processor: float
    peak: int


# Started anew, so that the peak of its children is that of this one command.
_CHILD = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, done.stderr[-2000:]]))
"""


def cost(*arguments: str) -> Cost:
    """Run a command of the harness.

    Raises:
        RuntimeError: it fails.
    """
    command = [sys.executable, "-c", _CHILD, sys.executable, "-m", "harness", *arguments]
    started = time.perf_counter()
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds = time.perf_counter() - started
    code, processor, peak, error = json.loads(out)
    if code:
        raise RuntimeError(f"harness {' '.join(arguments)[:200]} ended with {code}: {error}")
    return Cost(seconds, processor, peak)


def write_tasks(folder: Path, names: Sequence[str], prompts: int) -> None:
    """Write prompt tasks of so many prompts, of different words, and their data."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(20_000)]
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        lines = [f"Tell me about {' '.join(draw.choices(words, k=8))}." for _ in range(prompts)]
        (folder / f"{name}.csv").write_text("\n".join(["prompt", *lines]) + "\n", encoding="utf-8")
        (folder / f"{name}.yaml").write_text(
            f"name: {name}\nkind: {'benign' if number else 'harmful'}\nroles: [test]\nprompt: {{column: prompt}}\n"
            f"description: Prompts made for a measurement.\nlicence: none\ncitation: none\n"
            f"source:\n  package_files: [{name}.csv]\n",
            encoding="utf-8",
        )


def growth(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the exponent of the growth from the first size to the last."""
    return math.log(max(seconds[-1], 0.01) / max(seconds[0], 0.01)) / math.log(sizes[-1] / sizes[0])


def measured(step: str, sizes: Sequence[int], do: Callable[[int], Cost], idle: Cost) -> list[str]:
    """Return the rows of a step's sizes; none where no size is asked for."""
    if not sizes:
        return []
    costs = []
    for size in sizes:
        costs.append(do(size))
        print(step, size, costs[-1], file=sys.stderr, flush=True)
    power = growth(sizes, [max(0.1, each.processor - idle.processor) for each in costs])
    verdict = "yes" if power <= WORST_GROWTH else "**no**"
    return [
        f"| {step} | {size:,} | {each.seconds:.1f} | {each.processor:.1f} | {each.peak / 1e6:,.0f} "
        f"| {f'{power:.2f}' if last else ''} | {verdict if last else ''} |"
        for size, each, last in zip(sizes, costs, [False] * (len(sizes) - 1) + [True], strict=True)
    ]


def table(
    folder: Path, suites: Sequence[int], sizes: Sequence[int], runs: Sequence[int], lines: Sequence[int]
) -> list[str]:
    """Measure every step, with files under a folder."""
    idle = cost("tasks", "list")
    names = ["scale_a", "scale_b", "scale_c"]
    asked = [
        "--baselines",
        "none",
        "--capability",
        "none",
        "--intervention",
        "system_prompt",
        "--model",
        "demo",
    ]
    asked += ["--max-new-tokens", "2", "--judge", "keyword"]

    def run(size: int) -> Cost:
        tasks = folder / f"tasks-{size}"
        write_tasks(tasks, names, size)
        out = folder / f"run-{size}"
        return cost("run", *asked, "--include", str(tasks), "--tasks", ",".join(names), "--output", str(out))

    def leaderboard(size: int) -> Cost:
        board, one = folder / f"board-{size}", folder / f"run-{OF_A_BOARD}"
        if not one.exists():
            run(OF_A_BOARD)
        copies = [board / f"run-{number:05}" for number in range(size)]
        for copy in copies:
            shutil.copytree(one, copy)
        found = cost("report", *map(str, copies), "--html", str(folder / f"board-{size}.html"))
        shutil.rmtree(board)
        return found

    def plan(size: int) -> Cost:
        tasks = folder / f"lines-{size}"
        write_tasks(tasks, names[:1], size)
        dry = [*asked, "--include", str(tasks), "--tasks", names[0], "--limit", "100", "--dry-run"]
        return cost("run", *dry, "--output", str(folder / "never"))

    def suite(size: int) -> Cost:
        tasks, members = folder / f"suite-{size}", [f"suite_{number:02}" for number in range(15)]
        write_tasks(tasks, members, size // len(members))
        return cost("tasks", "check", *members, "--include", str(tasks))

    return [
        *measured("tasks check, prompts of 15 tasks", suites, suite, idle),
        *measured("run, prompts per task", sizes, run, idle),
        *measured(
            "measure, prompts per task", sizes, lambda n: cost("measure", str(folder / f"run-{n}")), idle
        ),
        *measured(
            "report, prompts per task", sizes, lambda n: cost("report", str(folder / f"run-{n}")), idle
        ),
        *measured("leaderboard, runs", runs, leaderboard, idle),
        *measured("plan with a limit, lines of data", lines, plan, idle),
    ]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = {
        "suites": "4000,8000,16000",
        "sizes": "250,500,1000",
        "runs": "20,40,80",
        "lines": "10000,20000,40000",
    }
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=_numbers, default=default)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        asked = (arguments.suites, arguments.sizes, arguments.runs, arguments.lines)
        rows = table(Path(temporary), *asked)
    print(f"{date.today()}, {os.cpu_count()} cores of {platform.processor() or platform.machine()}\n")
    print(
        "| step | size | seconds | processor seconds | peak, MB | growth | linear |\n|---|---|---|---|---|---|---|"
    )
    print("\n".join(rows))


if __name__ == "__main__":
    main()
