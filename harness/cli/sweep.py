"""`harness sweep`: a table of runs."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.base.errors import BadInputError
from harness.cli.shared import Json, Output, print_json

if TYPE_CHECKING:
    from harness.sweep.schema import Sweep


def sweep(
    file: Path,
    output: Output = None,
    executor: Literal["local", "ray"] = "local",
    address: str | None = None,
    jobs: Annotated[int | None, typer.Option(min=1)] = None,
    results: str | None = None,
    status: Annotated[bool, typer.Option("--status")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run")] = False,
    as_json: Json = False,
) -> int:
    """Do a table of runs (models x interventions x selections x objectives x seeds), and one leaderboard of all.

    Exit code 0: every run is finished; 1: one or more failed; 2: the file cannot be used. The same command resumes
    what is not finished.

    Args:
        file: YAML file with the axes of the table; with --status also a sweep's folder.
        output: Folder of the sweep. [runs/sweeps/NAME OF FILE]
        executor: What does the runs.
        address: Address of the Ray cluster, HOST:PORT or ray://HOST:PORT. [one on this machine]
        jobs: Local runs at a time. [as many as there are GPUs for; 1 without]
        results: Also copy finished runs to a folder or an fsspec address, such as s3://BUCKET/DIR.
        status: Show how far a sweep is, and stop.
        dry_run: Print the runs, and stop.
        as_json: Print the result as JSON.
    """
    if status:
        return _status(file, output, as_json)
    if executor == "local" and address is not None:
        raise BadInputError("--address is for --executor ray")
    if executor == "ray" and jobs is not None:
        raise BadInputError(
            "--jobs is for --executor local: Ray does as many runs as `resources` leaves room for"
        )
    from harness.sweep.schema import read_sweep

    plan = read_sweep(file)
    if dry_run:
        return _dry_run(plan, output or _default(file), as_json)
    return _go(plan, output or _default(file), executor, address, jobs, results, as_json)


def _default(file: Path) -> Path:
    return Path("runs") / "sweeps" / file.stem


def _go(
    plan: Sweep,
    output: Path,
    executor: Literal["local", "ray"],
    address: str | None,
    jobs: int | None,
    results: str | None,
    as_json: bool,
) -> int:
    from harness.sweep import show
    from harness.sweep.drive import drive, opened, write_leaderboard
    from harness.sweep.executors import Executor, local_executor
    from harness.sweep.folder import SweepFolder
    from harness.sweep.results import Results

    folder = SweepFolder(output)
    if results is not None:
        Results(results).check()
        results = str(Path(results).absolute()) if "://" not in results else results
    listed = [(cell.name, cell.labels) for cell in plan.cells]
    # Ray prints what it notices of lost nodes to stdout, where the result goes.
    with opened(folder, plan), contextlib.redirect_stdout(sys.stderr):
        does: Executor
        if executor == "ray":
            from harness.sweep.ray_executor import RayExecutor

            does = RayExecutor(address, plan.resources, plan.retries)
        else:
            does = local_executor(plan.resources, jobs)
        with show.live(listed, folder) as tell:
            outcome = drive(plan, folder, does, results, tell)
    files = write_leaderboard(folder, results, quiet=as_json)
    if as_json:
        runs = show.rows(listed, outcome.states, folder)
        print_json({"sweep": str(folder.path), "runs": runs, "leaderboard": [str(path) for path in files]})
    else:
        typer.echo(f"\n{show.counted(outcome.states)}; {len(outcome.redone)} done by this command")
        for name, reason in outcome.failed.items():
            typer.echo(f"failed: {name}: {reason} (see {folder.log(name)})")
        for path in files[:1]:
            typer.echo(f"Leaderboard: {path}")
    return 1 if outcome.failed else 0


def _status(file: Path, output: Path | None, as_json: bool) -> int:
    from rich.console import Console

    from harness.sweep import show
    from harness.sweep.folder import SweepFolder

    folder = SweepFolder(output or (file if file.is_dir() else _default(file)))
    listed = folder.listed()
    states = {name: folder.state(name) for name, _ in listed}
    if as_json:
        print_json({"sweep": str(folder.path), "runs": show.rows(listed, states, folder)})
    else:
        Console().print(show.table(listed, states, folder))
    return 0


def _dry_run(plan: Sweep, output: Path, as_json: bool) -> int:
    groups = len({cell.group for cell in plan.cells})
    if as_json:
        runs = [cell.record() for cell in plan.cells]
        print_json({"sweep": str(output), "runs": runs, "merged": plan.merged, "base_models": groups})
        return 0
    for cell in plan.cells:
        typer.echo(cell.name)
    merged = f", {plan.merged} combinations merged with them" if plan.merged else ""
    typer.echo(f"{len(plan.cells)} runs{merged}; base models that answer: {groups}. To go to {output}")
    return 0
