"""The executors of a run, those that wait for their devices among them."""

import time
from collections.abc import Iterator, Mapping, Sequence

from alto_exec.events.undecided import UndecidedError
from alto_exec.ray_cluster.devices import Devices
from alto_exec.ray_cluster.fleet import Fleet
from alto_exec.ray_cluster.node.messages import Broken, News, Secured
from alto_exec.ray_cluster.remote import LostError, RemoteExecutor
from alto_exec.ray_cluster.watch import Watch
from alto_exec.site import Start
from alto_policy.types import GpuId, Job, TaskId

__all__ = ["Roster"]

_CHECK_SECONDS = 1.0
_LATE_SECONDS = 2.0  # that a check may be late, or else the head was held up, or its machine
_SECURING_SECONDS = 0.01  # between two looks for what is on its way to the disk


class Roster:
    def __init__(self, fleet: Fleet, devices: Devices) -> None:
        self._fleet = fleet
        self._devices = devices
        self._executors: dict[TaskId, RemoteExecutor] = {}
        self._numbers: dict[TaskId, int] = {}  # which of the task's executors it is
        self._gpus: dict[TaskId, tuple[GpuId, ...]] = {}  # of the run, as the policy has it
        self._unplaced: dict[TaskId, Start] = {}
        self._watch = Watch(fleet.ping)
        self._tokens_of_gone = 0
        self._checked_at = time.monotonic()

    @property
    def max_losses(self) -> int:
        return self._fleet.max_losses

    @property
    def is_busy(self) -> bool:
        return bool(self._unplaced) or any(e.is_busy for e in self._executors.values())

    @property
    def lost_nodes(self) -> frozenset[str]:
        """Names of the run's nodes that are gone, while nothing stands in for them."""
        return self._devices.lost(self._watch.living())

    @property
    def tokens_trained(self) -> int:
        return self._tokens_of_gone + sum(e.tokens_trained for e in self._executors.values())

    def get(self, task: TaskId) -> RemoteExecutor | None:
        return self._executors.get(task)

    def attach(self, task: TaskId, number: int, gpus: tuple[GpuId, ...]) -> RemoteExecutor | None:
        """The executor as an earlier head has left it; None if it is gone."""
        if (executor := self._fleet.attach(task, number)) is None:
            return None
        self._devices.hold(task, executor.quarters.share)
        self._executors[task], self._numbers[task] = executor, number
        self._gpus[task] = gpus
        return executor

    def sweep(self) -> None:
        """End what earlier heads have left and nobody was attached to."""
        self._fleet.sweep([one.quarters.name for one in self._executors.values()])

    def start(self, task: TaskId, number: int, start: Start, gpus: tuple[GpuId, ...]) -> None:
        """Have executor `number` of the task started as soon as there are devices for it."""
        self._numbers[task] = number
        self._gpus[task] = gpus
        self._unplaced[task] = start

    def place(self) -> None:
        """Start those for which there are devices, in the order in which they were asked for."""
        if not self._unplaced:
            return
        found = self._watch.living()
        doubted = {node.name for node in found if self._watch.is_doubted(node.id)}
        sound = [node for node in found if node.name not in doubted]
        for task, start in tuple(self._unplaced.items()):
            gpus = self._gpus[task]
            if self._devices.homes(gpus) & doubted:
                continue  # it is soon known whether the node lives
            if share := self._devices.take(task, gpus, sound):
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
        if self._unplaced.pop(task, None) is not None:
            return False
        executor = self._executors.pop(task)
        self._devices.give_back(task)
        self._tokens_of_gone += executor.tokens_trained
        if executor.has_moved_out:
            self._fleet.vacate(executor.quarters)
        else:
            executor.quarters.close()
            if not executor.is_stopping:
                for node in dict.fromkeys(executor.quarters.share.nodes):
                    self._watch.doubt(node)
        return executor.is_stopping

    def withdraw(self, node: str) -> Sequence[TaskId]:
        """Strike off all that are on the run's node with this name, or were to be."""
        present = (*self._executors, *self._unplaced)
        gone = [task for task in present if node in self._devices.homes(self._gpus[task])]
        for task in gone:
            self.remove(task)
        return gone

    def close(self) -> None:
        for task in tuple(self._executors):
            self.remove(task)
        self._fleet.close()

    def secure(self, asked: Mapping[TaskId, Sequence[Job]]) -> Iterator[tuple[TaskId, News]]:
        """Have the best adapters of these jobs on disk; the other news that come meanwhile. Raises
        UndecidedError where an executor is lost first."""
        left = {task: tuple(job.id for job in jobs) for task, jobs in asked.items()}
        for task, jobs in asked.items():
            executor = self.get(task)
            if executor is None:
                raise UndecidedError(f"task {task}: lost its executor")
            executor.secure(jobs)
        while left:
            for task, news in self.listen(_SECURING_SECONDS, is_logged=False):
                if isinstance(news, Secured):
                    if left.get(task) == news.jobs:
                        del left[task]
                elif isinstance(news, Broken) and task in left:
                    raise UndecidedError(f"task {task}: lost its executor: {news.why}")
                else:
                    yield task, news
            if left:
                time.sleep(_SECURING_SECONDS)

    def listen(self, seconds: float, *, is_logged: bool = True) -> Iterator[tuple[TaskId, News]]:
        """News of all that speak, once the first one does, within so many seconds. Unless the log
        holds all that was heard, nothing is answered by it."""
        import ray

        by_pulse = {
            one.listening(is_logged=is_logged): (task, one) for task, one in self._executors.items()
        }
        if not by_pulse:
            time.sleep(seconds)
        else:
            pulses, _ = ray.wait(list(by_pulse), timeout=seconds)
            if pulses:  # or else one that always has something to say would drown out the others
                pulses, _ = ray.wait(list(by_pulse), num_returns=len(by_pulse), timeout=0)
            for task, one in (by_pulse[pulse] for pulse in pulses):
                if self._executors.get(task) is not one:
                    continue  # it was lost by what another one said
                try:
                    for news in one.hear():
                        yield task, news
                except LostError as error:
                    yield task, Broken(str(error))
        if time.monotonic() - self._checked_at > _CHECK_SECONDS:
            yield from self._check()

    def _check(self) -> Iterator[tuple[TaskId, News]]:
        found = self._watch.living()
        self._fleet.tend(found)
        living = frozenset(node.id for node in found)
        now = time.monotonic()
        late, self._checked_at = now - self._checked_at - _CHECK_SECONDS, now
        if late > _LATE_SECONDS:
            for executor in self._executors.values():
                executor.excuse(late)
        for task, executor in tuple(self._executors.items()):
            try:
                executor.check(living)
            except LostError as error:
                yield task, Broken(str(error))
