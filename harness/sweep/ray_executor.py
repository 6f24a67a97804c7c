"""A sweep's runs as tasks of a Ray cluster. Needs the extra `ray`."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import socket
from dataclasses import asdict
from typing import Any

from harness.base.errors import BadInputError, first_line
from harness.base.extras import pip_line
from harness.base.progress import say
from harness.sweep.folder import CellState
from harness.sweep.job import Job, run_job
from harness.sweep.schema import Resources

_SECONDS_TO_ANSWER = 5.0
# A worker is gone within moments of its node, but its children go first.
_SECONDS_TO_DIE = 10.0
_DEFAULT_PORTS = {"ray": 10001, "": 6379}


class RayExecutor:
    """Tasks of a Ray cluster; Ray shares them out to nodes and begins those of a lost node again.

    Args:
        address: HOST:PORT of the cluster's head, ray://HOST:PORT, or None for a cluster on this machine alone.
        resources: what one run takes.
        retries: how often a run is begun again whose node was lost.

    Raises:
        BadInputError: Ray is not installed, or no cluster answers at the address.
    """

    def __init__(self, address: str | None, resources: Resources, retries: int) -> None:
        if importlib.util.find_spec("ray") is None:
            raise BadInputError(f"--executor ray: Ray is not installed: {pip_line('ray')}")
        if address is not None:
            _check_answers(address)
        ray: Any = importlib.import_module("ray")
        self._ray = ray
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else {"include_dashboard": False}),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"--address {address}" if address else "--executor ray"
            raise BadInputError(f"{where}: Ray does not start: {first_line(error)}") from error
        memory = None if resources.memory_gib is None else int(resources.memory_gib * 2**30)
        self._task = ray.remote(
            num_cpus=resources.cpus, num_gpus=resources.gpus, memory=memory, max_retries=retries
        )(_run_on_node)
        self._running: dict[Any, str] = {}
        self._warn_of_small_nodes(resources, memory)

    def free(self) -> bool:
        """Ray queues what it has no room for."""
        return True

    def submit(self, job: Job) -> None:
        """Hand a run to Ray."""
        self._running[self._task.options(name=job.name).remote(asdict(job))] = job.name

    def wait(self, seconds: float) -> list[tuple[str, CellState]]:
        """Return the runs that ended."""
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [(self._running.pop(task), self._state(task)) for task in ended]

    def _state(self, task: Any) -> CellState:
        try:
            return CellState.model_validate(self._ray.get(task))
        except self._ray.exceptions.RayError as error:
            return CellState(state="failed", reason=f"Ray: {type(error).__name__}: {first_line(error)}")

    def close(self) -> None:
        """Leave the cluster, which stops what this sweep still runs there."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._ray.shutdown()

    def _warn_of_small_nodes(self, resources: Resources, memory: int | None) -> None:
        needed = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": memory or 0}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= n for name, n in needed.items()) for node in nodes):
            say(f"no node of the Ray cluster has what a run takes ({resources}): waiting for one that has")


def _run_on_node(job: dict[str, Any]) -> dict[str, Any]:
    ray: Any = importlib.import_module("ray")
    node = f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}"
    return run_job(Job(**job), node=node, wait_after_kill=_SECONDS_TO_DIE).model_dump()


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would try for a long time."""
    kind, separator, rest = address.rpartition("://")
    host, _, port = rest.partition(":")
    local = rest in ("auto", "local")
    if (separator and kind != "ray") or not (local or (host and (port.isdigit() or not port))):
        raise BadInputError(f"--address {address}: expected HOST:PORT or ray://HOST:PORT")
    if local:
        return
    try:
        place = (host, int(port or _DEFAULT_PORTS[kind]))
        socket.create_connection(place, timeout=_SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise BadInputError(
            f"--address {address}: no Ray cluster answers there ({error.strerror or error}): `ray start --head` "
            "starts one"
        ) from error
