"""A Ray cluster as the place where a run trains."""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from alto_exec.comparing import compare
from alto_exec.events.moving import Move
from alto_exec.events.past import Past
from alto_exec.host.machine import settle
from alto_exec.host.process import multiply_with
from alto_exec.host.thread_count import best_thread_count
from alto_exec.preparation import PreparedTask
from alto_exec.ray_cluster import local
from alto_exec.ray_cluster.devices import Devices, gpus_of, move_of, nodes
from alto_exec.ray_cluster.fleet import Fleet
from alto_exec.ray_cluster.head import RayBackend
from alto_exec.ray_cluster.nurseries import Nurseries
from alto_exec.ray_cluster.own_node import for_this_machine
from alto_exec.ray_cluster.quarters import NAMESPACE
from alto_exec.ray_cluster.remote import Patience
from alto_exec.ray_cluster.roster import Roster
from alto_exec.site import RunToTrain, TrainingBackend
from alto_policy.types import Gpu, TaskId
from alto_policy.view import ClusterView
from alto_runs.errors import UserError
from alto_runs.files.scratch import held_folder, sweep_folders
from alto_runs.outcomes.comparison import Comparison
from alto_runs.outcomes.leaderboard import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Standing
from alto_runs.result import Best, Result
from alto_runs.study import ExecutorSpec, Study

__all__ = ["LOCAL", "RayCluster", "connected"]

log = logging.getLogger(__name__)

LOCAL = "local"
_KNOCK_SECONDS = 5.0
_JOINING: dict[str, Any] = {  # whatever the cluster
    "namespace": NAMESPACE,
    "log_to_driver": False,
    "logging_level": "ERROR",
}


class RayCluster:
    """All devices of the cluster that this process is connected to."""

    def __init__(
        self, patience: Patience | None = None, threads: int | None = None, door: str = ""
    ) -> None:
        """So many `threads` are best for an executor on a CPU, if that is known. `door` is of what
        forks processes where this machine is all of the cluster."""
        self._patience = patience or Patience()
        self._threads = threads
        self._fleet: Fleet | None = None
        self._nurseries = Nurseries(door)
        self._nurseries.tend(nodes())

    def settle(self, spec: ExecutorSpec) -> ExecutorSpec:
        has_cuda = any(node.has_cuda for node in nodes())
        return settle(spec, has_cuda=has_cuda, threads=self._threads)

    def gpus(self, spec: ExecutorSpec) -> tuple[Gpu, ...]:
        width = spec.gpus or 1
        found = gpus_of(nodes(), width, across_nodes=spec.across_nodes)
        if not found and width > 1:
            who = (
                "all nodes of the cluster together have not"
                if spec.across_nodes
                else ("no node of the cluster has")
            )
            raise UserError(f"executor.gpus: value {width}: {who} as many GPUs")
        if not found:
            raise UserError("--cluster: no node of the cluster has a GPU or a CPU to train on")
        return found

    def move(self, spec: ExecutorSpec, past: Past, view: ClusterView) -> Move:
        self.gpus(spec)  # are there any?
        return move_of(nodes(), spec, past, view)

    @contextmanager
    def backend(self, run: RunToTrain) -> Iterator[TrainingBackend]:
        self._fleet = Fleet(run.directory, self._patience, self._nurseries)
        devices = Devices(
            run.past.move.after(run.ledger.gpus),
            run.spec.gpus or 1,
            across_nodes=run.spec.across_nodes,
        )
        backend = RayBackend(
            run.inbox, run.files, Roster(self._fleet, devices), run.past, run.ledger
        )
        try:
            yield backend
        finally:
            backend.close()

    def compare(
        self, study: Study, prepared: Sequence[PreparedTask], result: Result
    ) -> tuple[Comparison, ...]:
        """Here, or in a process of the cluster where its GPUs are wanted and none is here."""
        if study.executor.device == "cpu" or torch.cuda.is_available():
            return _compare_each(study, prepared, result.best)
        import ray

        if self._fleet is not None:
            self._fleet.close()  # what an executor has left is needed here
        winners = {one.task.id: _packed(result.best(one.task.id)) for one in prepared}
        compared = ray.remote(num_gpus=1)(_compare).remote(study, prepared, winners)
        found: tuple[Comparison, ...] = ray.get(compared)
        return found


@contextmanager
def connected(address: str) -> Iterator[RayCluster]:
    """The cluster at HOST:PORT, or this machine as a cluster of its own where that says `local`.

    `auto` is the cluster that this machine is a node of. Raises UserError.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--cluster: Ray is missing, expected the package alto-lora[cluster]"
        ) from error
    threads, door, hint = None, "", ""
    try:
        if address == LOCAL:
            own = local.made()
            door = own.door
            sweep_folders()
            with own.paused():
                threads = best_thread_count()
            with for_this_machine():
                ray.init(address=own.address, **_JOINING)
        else:
            _knock(address)
            if address != "auto" and "RAY_AUTH_MODE" not in os.environ:
                # Ray takes its token along to a cluster that it finds itself, never to a named one.
                hint = " (one that asks for a token needs RAY_AUTH_MODE=token here)"
            ray.init(address=address, **_JOINING)
    except (OSError, ValueError) as error:
        local.end()
        raise UserError(
            f"--cluster: value {address!r}: no Ray cluster there{hint}, expected local, auto or "
            "HOST:PORT"
        ) from error
    try:
        yield RayCluster(threads=threads, door=door)
    finally:
        local.end()
        ray.shutdown()


def _knock(address: str) -> None:
    """Raises OSError or ValueError where nobody listens, which Ray takes minutes to find out."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), _KNOCK_SECONDS).close()


Packed = tuple[Standing, Mapping[str, bytes]]  # and the adapter's files


def _packed(best: Best | None) -> Packed | None:
    """The other process may be on a node that does not see the run's folder."""
    if best is None or best.adapter is None:
        return None
    names = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
    return best.standing, {name: (best.adapter / name).read_bytes() for name in names}


def _compare(
    study: Study, prepared: Sequence[PreparedTask], winners: Mapping[TaskId, Packed | None]
) -> tuple[Comparison, ...]:
    """In a process of the cluster."""
    assert study.executor.threads is not None
    multiply_with(study.executor.threads)
    with held_folder() as folder:

        def best_of(task: TaskId) -> Best | None:
            if (packed := winners[task]) is None:
                return None
            standing, files = packed
            for name, content in files.items():
                (folder / name).write_bytes(content)
            return Best(standing, folder)

        return _compare_each(study, prepared, best_of)


def _compare_each(
    study: Study, prepared: Sequence[PreparedTask], best_of: Callable[[TaskId], Best | None]
) -> tuple[Comparison, ...]:
    """On one GPU, which may be too small for what several have trained."""
    found: list[Comparison] = []
    for one in prepared:
        try:
            found += compare(study, [one], best_of)
        except torch.OutOfMemoryError:
            log.warning("task %s: not compared, its backbone does not fit one GPU", one.task.id)
    return tuple(found)
