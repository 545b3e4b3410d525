"""The executors of a run, those that wait for their devices among them."""

import time
from collections.abc import Iterator

from alto_exec.ray_cluster.devices import Devices, nodes
from alto_exec.ray_cluster.fleet import Fleet
from alto_exec.ray_cluster.messages import Broken, News
from alto_exec.ray_cluster.remote import LostError, RemoteExecutor
from alto_exec.site import Start
from alto_policy.types import GpuId, Job, TaskId

__all__ = ["Roster"]

_CHECK_SECONDS = 1.0
_SUSPICION_SECONDS = 30.0  # Ray believes a dead node to live for about as long


class Roster:
    def __init__(self, fleet: Fleet, devices: Devices) -> None:
        self._fleet = fleet
        self._devices = devices
        self._executors: dict[TaskId, RemoteExecutor] = {}
        self._numbers: dict[TaskId, int] = {}  # which of the task's executors it is
        self._unplaced: dict[TaskId, tuple[Start, tuple[GpuId, ...]]] = {}
        self._suspected: dict[str, float] = {}  # ids of nodes that lost an executor, and until when
        self._tokens_of_gone = 0
        self._checked_at = time.monotonic()

    @property
    def is_busy(self) -> bool:
        return bool(self._unplaced) or any(e.is_busy for e in self._executors.values())

    @property
    def tokens_trained(self) -> int:
        return self._tokens_of_gone + sum(e.tokens_trained for e in self._executors.values())

    def get(self, task: TaskId) -> RemoteExecutor | None:
        return self._executors.get(task)

    def join(self, task: TaskId, job: Job, stay: int, place: int) -> None:
        """Does nothing if the executor is lost: that news is on its way."""
        if executor := self._executors.get(task):
            executor.join(job, stay, place)

    def attach(self, task: TaskId, number: int) -> RemoteExecutor | None:
        """The executor as an earlier head has left it; None if it is gone."""
        if (executor := self._fleet.attach(task, number)) is None:
            return None
        self._devices.hold(task, executor.quarters.share)
        self._executors[task], self._numbers[task] = executor, number
        return executor

    def sweep(self) -> None:
        """End what earlier heads have left and nobody was attached to."""
        self._fleet.sweep([one.quarters.name for one in self._executors.values()])

    def start(self, task: TaskId, number: int, start: Start, gpus: tuple[GpuId, ...]) -> None:
        """Have executor `number` of the task started as soon as there are devices for it."""
        self._numbers[task] = number
        self._unplaced[task] = start, gpus

    def place(self) -> None:
        """Start those for which there are devices, in the order in which they were asked for."""
        if not self._unplaced:
            return
        found, now = nodes(), time.monotonic()
        suspected = {node for node, until in self._suspected.items() if now < until}
        for task, (start, gpus) in tuple(self._unplaced.items()):
            if share := self._devices.take(task, gpus, found, suspected):
                del self._unplaced[task]
                number = self._numbers[task]
                self._executors[task] = self._fleet.start(task, number, start, share)

    def stop(self, task: TaskId) -> bool:
        """True if it is gone at once; else it is told to be lost when it is."""
        if self._unplaced.pop(task, None) is not None:
            return True
        if executor := self._executors.get(task):
            executor.stop()
        return False

    def remove(self, task: TaskId) -> bool:
        """Strike off one that is lost; whether it was asked to go."""
        executor = self._executors.pop(task)
        self._devices.give_back(task)
        self._tokens_of_gone += executor.tokens_trained
        if executor.has_moved_out:
            self._fleet.vacate(executor.quarters)
        else:
            executor.quarters.close()
            if not executor.is_stopping:
                until = time.monotonic() + _SUSPICION_SECONDS
                self._suspected[executor.quarters.share.node] = until
        return executor.is_stopping

    def close(self) -> None:
        for task in tuple(self._executors):
            self.remove(task)
        self._fleet.close()

    def listen(self, seconds: float) -> Iterator[tuple[TaskId, News]]:
        """News of whoever speaks first, within so many seconds."""
        import ray

        by_pulse = {one.listening(): task for task, one in self._executors.items()}
        if not by_pulse:
            time.sleep(seconds)
        else:
            pulses, _ = ray.wait(list(by_pulse), timeout=seconds)
            for pulse in pulses:
                task = by_pulse[pulse]
                try:
                    for news in self._executors[task].hear():
                        yield task, news
                except LostError as error:
                    yield task, Broken(str(error))
        if time.monotonic() - self._checked_at > _CHECK_SECONDS:
            yield from self._check()

    def _check(self) -> Iterator[tuple[TaskId, News]]:
        found = nodes()
        self._fleet.tend(found)
        living = frozenset(node.id for node in found)
        self._checked_at = time.monotonic()
        for task, executor in tuple(self._executors.items()):
            try:
                executor.check(living)
            except LostError as error:
                yield task, Broken(str(error))
