"""Kills and damages: does a run that was killed end as an undisturbed one, and does damage ever reach a figure?

    python benchmarks/fault_campaign.py WORK [--output faults.json] [--times 60] [--share 1] [--seed 0]

The run is the demo's main job, cut down to seconds. Kills: one at every file that it writes (half written, before or
after the rename), and `--times` at random times; a third of them is killed twice. Damages: every kind of file of a
finished run, of one killed while it answered and of one killed while it trained, in 12 ways, before every command that
reads a run folder. Results go into the output file case by case: the same command continues where it was stopped.
`--share` takes that share of each kind of case, drawn by the seed. Exit code 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

# Before torch and the tokenizers are imported: forks must find no threads, nor any of them the hub.
os.environ.update(
    OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES=""
)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import fault_damages, fault_disks, fault_kills
from benchmarks.fault_process import AtWrite, run

COMMAND = (
    *("run", "--limit", "4", "--baselines", "none", "--capability-limit", "2"),
    *("--set", "training.max_steps=2", "--set", "training.checkpoint_every=1"),
    *("--set", "generation.batch_size=2", "--set", "generation.max_new_tokens=8"),
)
GATES = "gates: [{name: g, metric: refusal_rate, task: demo_benign, at_most: 0.9}]\n"
GROUPS = ("kills", "disks", "damages")
SAVE_EVERY_S = 5.0

Case = Callable[[], dict[str, str]]


class Results:
    """The outcomes so far, in a file that the next command continues from."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"settings": dict(settings), **{group: {} for group in GROUPS}}
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["settings"] != self.content["settings"]:
                raise SystemExit(f"{path} is of other settings: {known['settings']}")
            self.content = known
        self._saved = time.monotonic()

    def do(self, group: str, cases: Mapping[str, Case]) -> None:
        """Do the cases that have no outcome yet."""
        outcomes = self.content[group]
        for name, case in cases.items():
            if name in outcomes:
                continue
            outcomes[name] = case()
            if "fault" in outcomes[name]:
                print(f"FAULT {group}: {name}: {outcomes[name]['fault']}", flush=True)
            if time.monotonic() - self._saved > SAVE_EVERY_S:
                self.save()
        self.save()
        print(f"{group}: {len(outcomes)} cases, {self.faults(group)} faults", flush=True)

    def save(self) -> None:
        """Write the file."""
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.content, indent=1), encoding="utf-8")
        beside.replace(self.path)
        self._saved = time.monotonic()

    def faults(self, group: str) -> int:
        """Return how many cases of a group have a fault."""
        return sum("fault" in outcome for outcome in self.content[group].values())


def taken(names: Iterable[str], share: float, seed: int) -> list[str]:
    """Return a share of the cases, in an order drawn by the seed: a campaign that is stopped has done a sample."""
    drawn = {name: random.Random(f"{seed} taken {name}").random() for name in names}
    return sorted((name for name in drawn if drawn[name] < share), key=drawn.__getitem__)


def campaign(
    work: Path, output: Path, times: int, share: float, seed: int, groups: Sequence[str] = GROUPS
) -> Results:
    """Do a campaign in a folder of its own."""
    from harness.cli.main import main

    work.mkdir(parents=True, exist_ok=True)
    folder, other, log = work / "run", work / "other", work / "said"
    command = [*COMMAND, "--output", str(folder)]
    results = Results(output, {"times": times, "share": share, "seed": seed})
    gates = work / "gates.yaml"
    gates.write_text(GATES)
    for path in (folder, other, work / "made"):
        shutil.rmtree(path, ignore_errors=True)
    # The process that forks has run everything once.
    if main([*COMMAND, "--seed", "1", "--output", str(other)]):
        raise SystemExit("the run does not work")
    expected = fault_kills.undisturbed(command, folder, log)
    finished = _copied(folder, work / "finished")

    if "kills" in groups:
        kills = taken(fault_kills.names(expected, times, seed), share, seed)
        results.do(
            "kills",
            {name: lambda name=name: fault_kills.killed(name, expected, seed, log) for name in kills},  # type: ignore[misc]
        )
    if "disks" in groups:
        with fault_disks.disk(work / "disk") as is_mounted:
            if is_mounted:
                works = fault_disks.works(work / "disk", [*COMMAND, "--save-model"], log, work / "kept")
                rooms = taken(fault_disks.names(works), share, seed)
                results.do(
                    "disks",
                    {
                        name: lambda name=name: fault_disks.filled(name, works, work / "disk", log)  # type: ignore[misc]
                        for name in rooms
                    },
                )
            else:
                print("disks: left out, only root may mount one", flush=True)
    if "damages" not in groups:
        return results

    place = fault_damages.Place(folder, other, work / "made", gates, command, log)
    with redirect_stdout(io.StringIO()):
        # Forks find everything imported.
        for arguments in place.commands().values():
            main(arguments)
    states = {"finished": finished} | _unfinished(expected, work, log)
    for state, pristine in states.items():
        of = fault_damages.base(state, pristine, expected.files, place)
        chosen = taken(fault_damages.names(of, seed), share, seed)
        cases: dict[str, Case] = {
            name: lambda name=name, of=of: fault_damages.damaged(name, of, place, seed)  # type: ignore[misc]
            for name in chosen
        }
        results.do("damages", cases)
    return results


def _unfinished(expected: fault_kills.Undisturbed, work: Path, log: Path) -> dict[str, Path]:
    """Return folders of runs that were killed within an answer file's batches, and within training."""
    states: dict[str, Path] = {}
    for state, file in (("answering", ".partial/00001.safetensors"), ("training", "/checkpoint.partial")):
        number = next(i for i, name in enumerate(expected.renames) if name.endswith(file))
        shutil.rmtree(expected.folder)
        run(expected.command, log, AtWrite(number, "after"))
        states[state] = _copied(expected.folder, work / state)
    return states


def _copied(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(folder, to))


def table(results: Results) -> str:
    """Return the counts as Markdown."""
    lines = ["| kill | cases | ended alike, nothing asked twice |", "|---|---|---|"]
    kills = results.content["kills"].values()
    for kind, n in sorted(Counter(outcome["kind"] for outcome in kills).items()):
        faults = sum(outcome["kind"] == kind and "fault" in outcome for outcome in kills)
        lines.append(f"| {kind} | {n} | {n - faults} |")
    lines += [
        "",
        "| command on a full disk | cases | said, and continued | room enough, or shown all the same | fault |",
    ]
    lines.append("|---|---|---|---|---|")
    for name in dict.fromkeys(case.partition(", ")[0] for case in results.content["disks"]):
        ends = [o for case, o in results.content["disks"].items() if case.partition(", ")[0] == name]
        said = sum(end.get("outcome") == "said, and continued" for end in ends)
        faults = sum("fault" in end for end in ends)
        lines.append(f"| {name} | {len(ends)} | {said} | {len(ends) - said - faults} | {faults} |")
    columns = ["refused", "done again and said", "no effect", "nothing to damage", "fault"]
    lines += ["", f"| command | cases | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    counts: dict[str, Counter[str]] = {}
    for name, outcome in results.content["damages"].items():
        state, command, *_ = name.split(", ")
        row = command if state == "finished" else f"{command} ({state})"
        counts.setdefault(row, Counter())[outcome.get("outcome", "fault")] += 1
    for row, count in counts.items():
        lines.append(f"| {row} | {count.total()} | {' | '.join(str(count[column]) for column in columns)} |")
    return "\n".join(lines)


def _main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=GROUPS, action="append", help="may be repeated; all by default")
    given = parser.parse_args()
    work, groups = given.work.absolute(), given.only or GROUPS
    results = campaign(
        work, given.output or work / "faults.json", given.times, given.share, given.seed, groups
    )
    print(table(results))
    return int(any(map(results.faults, GROUPS)))


if __name__ == "__main__":
    sys.exit(_main())
