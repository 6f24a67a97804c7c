"""The summary, reports and gates of a finished run as text files, to compare with those of another run.

    python tools/demo_goldens.py RUN FOLDER          write the files of a run into FOLDER
    python tools/demo_goldens.py --compare A B       show how two such folders differ; exit code 1 if they do

Times, ids, versions and places are left out, so that two versions of the code that say the same in a run give equal
files. Start it in the root of the repository.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1] / "tests"

_GATES = Path(__file__).with_name("gates.yaml")


def main() -> int:
    """Write or compare; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compare", action="store_true", help="compare two folders that were written before")
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    asked = parser.parse_args()
    sys.path.insert(0, str(_TESTS))
    from normalised import difference, leaderboard, normalised, raw_files, read_files, write_files

    if asked.compare:
        differences = difference(read_files(asked.first), read_files(asked.second))
        print(differences or "no difference")
        return 1 if differences else 0
    files = normalised(asked.first, _GATES) | raw_files(asked.first)
    write_files(asked.second, files | leaderboard([asked.first, asked.first]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
