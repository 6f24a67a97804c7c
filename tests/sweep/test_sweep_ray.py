"""`harness sweep --executor ray` on a real cluster: two nodes, started as processes of their own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from loopback import free_port, wait_for

from harness.base.files import read_json
from harness.cli.main import main
from harness.sweep.schema import Resources

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,
        reason="Ray is not installed; tox run -e ray runs these tests",
    ),
]

AXES = {"selection.top_k": [4, 8, 12], "seed": [0, 1]}
_RAY = Path(sys.executable).with_name("ray")
_ENVIRONMENT = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}


class Node:
    """A node of a cluster, and how it dies."""

    def __init__(self, *arguments: str) -> None:
        small = ("--num-cpus=1", "--object-store-memory=80000000", "--node-ip-address=127.0.0.1", "--block")
        self.process = subprocess.Popen(
            [str(_RAY), "start", *arguments, *small],
            env=_ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def below(self) -> list[psutil.Process]:
        try:
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def die(self) -> None:
        """Kill what makes it a node; what it ran is left to notice."""
        self._kill(
            [each for each in self.below() if not any(word in command(each) for word in ("ray::", "harness"))]
        )

    def end(self) -> None:
        self._kill(self.below())

    def _kill(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie, too
        return ""


class Cluster:
    """A head and a worker on the loopback interface."""

    def __init__(self, folder: str) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.head = Node("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
        self.wait_for_nodes(1)
        self.worker = Node(f"--address={self.address}")
        self.wait_for_nodes(2)

    def wait_for_nodes(self, n: int) -> None:
        count = "import ray,sys; ray.init(address=sys.argv[1]); print(sum(n['Alive'] for n in ray.nodes()))"
        until = time.monotonic() + 90
        while time.monotonic() < until:
            found = subprocess.run(
                [sys.executable, "-c", count, self.address],
                env=_ENVIRONMENT,
                capture_output=True,
                text=True,
                check=False,
            )
            if found.stdout.strip().endswith(str(n)):
                return
            time.sleep(0.5)
        raise AssertionError(f"the Ray cluster has no {n} nodes: {found.stderr[-500:]}")

    def end(self) -> None:
        self.worker.end()
        self.head.end()


@pytest.fixture
def cluster():
    # Ray's sockets have paths of a limited length.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(folder)
        try:
            yield cluster
        finally:
            cluster.end()


def sweep(file: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "harness", "sweep", str(file), "--output", str(out), "--json", *more]


def done(command: list[str]) -> dict[str, dict]:
    """Return the runs of a sweep that is to succeed, by name."""
    ended = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:] + ended.stdout[-2000:]
    return {run["name"]: run for run in json.loads(ended.stdout)["runs"]}


def states(out: Path) -> dict[str, dict]:
    return {path.stem: read_json(path) for path in out.glob("cells/*.json")}


def test_a_cluster_finds_what_this_machine_finds(cluster, sweep_file, tmp_path, findings):
    file = sweep_file(axes=AXES)
    on_ray = done(sweep(file, tmp_path / "ray", "--executor", "ray", "--address", cluster.address))
    assert len(on_ray) == 6
    assert len({run["node"] for run in on_ray.values()}) == 2, "one of the nodes did nothing"
    here = done(sweep(file, tmp_path / "local"))
    assert here.keys() == on_ray.keys()
    for name in here:
        assert findings(tmp_path / "ray" / "runs" / name) == findings(tmp_path / "local" / "runs" / name)


def test_runs_of_a_node_that_is_killed_are_begun_again_elsewhere(cluster, sweep_file, tmp_path):
    out = tmp_path / "out"
    order = sweep(sweep_file(axes=AXES), out, "--executor", "ray", "--address", cluster.address)
    driver = subprocess.Popen(
        order, env=_ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def nodes():
        return {name: state["node"] for name, state in states(out).items() if state["state"] == "running"}

    # Half way, with a run on either node.
    wait_for(lambda: len(set(nodes().values())) == 2 or driver.poll() is not None, seconds=180)
    assert driver.poll() is None
    running, finished = nodes(), {n for n, s in states(out).items() if s["state"] == "finished"}
    assert finished
    cluster.worker.die()
    said, complained = driver.communicate(timeout=400)
    assert driver.returncode == 0, complained[-2000:]
    runs = {run["name"]: run for run in json.loads(said)["runs"]}
    assert len(runs) == 6
    again = [name for name, run in runs.items() if run["attempt"] > 1]
    assert len(again) == 1
    assert again[0] in running
    assert runs[again[0]]["node"] != running[again[0]]
    assert all(runs[name]["attempt"] == 1 for name in finished)


def test_a_driver_that_was_killed_does_nothing_again_that_was_finished(cluster, sweep_file, tmp_path):
    out = tmp_path / "out"
    order = sweep(sweep_file(axes=AXES), out, "--executor", "ray", "--address", cluster.address)
    driver = subprocess.Popen(order, env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def finished():
        return {
            name: (out / "runs" / name / "summary.json").stat().st_mtime_ns
            for name, state in states(out).items()
            if state["state"] == "finished"
        }

    wait_for(lambda: len(finished()) >= 2 or driver.poll() is not None, seconds=180)
    assert driver.poll() is None
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    before = finished()
    runs = done(order)
    assert len(runs) == 6
    assert {run["state"] for run in runs.values()} == {"finished"}
    assert all((out / "runs" / name / "summary.json").stat().st_mtime_ns == at for name, at in before.items())
    assert all(runs[name]["attempt"] == 1 for name in before)


def test_an_address_where_no_ray_is_is_told_at_once(sweep_file, tmp_path, capsys):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    began = time.monotonic()
    file = sweep_file(axes={"seed": [0]})
    for wrong, said in (
        (address, f"--address {address}: no Ray cluster answers there"),
        ("tcp://127.0.0.1:1", "expected HOST:PORT or ray://HOST:PORT"),
        ("127.0.0.1:many", "expected HOST:PORT or ray://HOST:PORT"),
    ):
        order = [
            "sweep",
            str(file),
            "--output",
            str(tmp_path / "out"),
            "--executor",
            "ray",
            "--address",
            wrong,
        ]
        assert main(order) == 2
        assert said in capsys.readouterr().err
    assert time.monotonic() - began < 60


def test_a_node_that_is_too_small_is_pointed_out(cluster, monkeypatch, capsys):
    from harness.sweep.ray_executor import RayExecutor

    for name, value in _ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    RayExecutor(cluster.address, Resources(cpus=64), retries=0).close()
    assert "no node of the Ray cluster has what a run takes (cpus=64" in capsys.readouterr().err
    RayExecutor(cluster.address, Resources(cpus=1), retries=0).close()
    assert "no node" not in capsys.readouterr().err
