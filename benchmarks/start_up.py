"""How long `harness --help` takes, beside importing typer, rich and pydantic alone.

    python benchmarks/start_up.py [--pairs 20]

Both are started in turn, pair by pair, so that what else the machine does touches both alike. Printed is the median of
the ratios of pairs, by the clock and by CPU time, with its quartiles and the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

HELP = ["-m", "harness", "--help"]
IMPORTS = ["-c", "import typer, rich, pydantic"]


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Run Python once; returns seconds by the clock and of CPU time."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    end, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    return end - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20)
    pairs = parser.parse_args().pairs
    for arguments in (HELP, IMPORTS):
        seconds(arguments)  # bytecode is compiled, files are in the cache
    found = [(seconds(HELP), seconds(IMPORTS)) for _ in range(pairs)]
    print(
        json.dumps(
            {
                "python": platform.python_version(),
                "machine": platform.platform(),
                "cores": os.cpu_count(),
                "load": round(os.getloadavg()[0], 2),
                "pairs": pairs,
            }
        )
    )
    for place, name in enumerate(("clock", "cpu")):
        low, middle, high = statistics.quantiles([help[place] / other[place] for help, other in found], n=4)
        mine, theirs = (statistics.median(pair[which][place] for pair in found) for which in (0, 1))
        print(
            f"{name}: harness --help {mine * 1000:.0f} ms, imports alone {theirs * 1000:.0f} ms, "
            f"ratio {middle:.2f} ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
