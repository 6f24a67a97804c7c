"""The scripts for SLURM run as sbatch would run them; `srun` only runs its command, here, after its own options."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.base.files import read_json

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "examples" / "cluster"
SRUN = '#!/bin/bash\n[[ $SRUN_CPUS_PER_TASK == 1 ]] || exit 9\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
# Two nodes on this machine, as small as the tests of the sweep have them.
SRUN_RAY = """#!/bin/bash
echo "$@" >>"$CALLS"
while [[ $1 == --* ]]; do shift; done
exec "$@" --num-cpus=1 --object-store-memory=80000000 --node-ip-address=127.0.0.1 $([[ $3 != --head ]] || echo \
    --include-dashboard=false --temp-dir="$RAY_FOLDER")
"""
SMALL = (
    *("--limit", "8", "--baselines", "none", "--capability", "none", "--set", "split_seed=0"),
    *("--set", "generation.max_new_tokens=4", "--set", "training.max_steps=1"),
)


def submit(script, *arguments, folder, programs, **variables):
    """Do what sbatch does with a script on the first node of a job."""
    path = folder / "programs"
    path.mkdir(exist_ok=True)
    for name, text in programs.items():
        (path / name).write_text(text)
        (path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(path), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "4711",
        **variables,
    }
    command = ["bash", str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500
    )


@pytest.mark.parametrize("script", ["slurm.sh", "slurm_ray.sh"])
def test_a_script_is_bash_and_its_options_stand_where_sbatch_reads_them(script):
    path = SCRIPTS / script
    subprocess.run(["bash", "-n", path], check=True)
    assert path.stat().st_mode & stat.S_IXUSR
    lines = path.read_text(encoding="utf-8").splitlines()
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert max(options) < first_command
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", lines[number]) for number in options)


@pytest.mark.slow
def test_each_job_of_the_array_is_a_run_and_a_requeued_one_goes_on(tmp_path):
    job = {"SLURM_JOB_NAME": "harness", "SLURM_CPUS_PER_TASK": "1", "SLURM_ARRAY_TASK_ID": "3"}
    first = submit("slurm.sh", *SMALL, folder=tmp_path, programs={"srun": SRUN}, **job)
    assert first.returncode == 0, first.stderr
    run = tmp_path / "runs/harness/seed-3"
    summary = (run / "summary.json").read_bytes()
    assert read_json(run / "run.json")["config"]["seed"] == 3
    again = submit("slurm.sh", *SMALL, folder=tmp_path, programs={"srun": SRUN}, **job)
    assert again.returncode == 0, again.stderr
    assert (run / "summary.json").read_bytes() == summary


@pytest.mark.slow
def test_a_run_that_fails_fails_its_job(tmp_path):
    job = {"SLURM_JOB_NAME": "harness", "SLURM_CPUS_PER_TASK": "1", "SLURM_ARRAY_TASK_ID": "3"}
    done = submit("slurm.sh", "--tasks", "nothing", folder=tmp_path, programs={"srun": SRUN}, **job)
    assert done.returncode == 2
    assert "nothing" in done.stderr


@pytest.mark.ray
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed; tox run -e ray runs this"
)
def test_the_ray_job_sweeps_on_two_nodes_and_leaves_none_behind(tmp_path, sweep_file):
    table = sweep_file(axes={"seed": [0, 1]})
    calls = tmp_path / "calls"
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        done = submit(
            "slurm_ray.sh",
            table,
            tmp_path / "sweep",
            folder=tmp_path,
            programs={"srun": SRUN_RAY, "scontrol": "#!/bin/bash\nprintf '127.0.0.1\\nother\\n'\n"},
            SLURM_JOB_NODELIST="node[1-2]",
            SLURM_JOB_NUM_NODES="2",
            CALLS=str(calls),
            RAY_FOLDER=folder,
            RAY_USAGE_STATS_ENABLED="0",
            RAY_enable_metrics_collection="0",
        )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "sweep").glob("runs/*/summary.json"))) == 2
    assert (tmp_path / "sweep/leaderboard.html").is_file()
    head, workers = calls.read_text().splitlines()
    assert head.startswith("--nodes=1 --ntasks=1 --nodelist=127.0.0.1 ray start --head --port=24711")
    assert workers.startswith("--nodes=1 --ntasks=1 --exclude=127.0.0.1 ray start --address=127.0.0.1:24711")
    with socket.socket() as port:
        assert port.connect_ex(("127.0.0.1", 24711)) != 0
