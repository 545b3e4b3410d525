"""What preemptive policies share: the most urgent tasks hold the GPUs, others give way."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alto_policy.decisions import Decision, Pause, StartExecutor, StopExecutor, WakeAt
from alto_policy.dispatch import Dispatch
from alto_policy.events import (
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    NodeUp,
    TaskArrived,
    TaskCancelled,
    TimerFired,
)
from alto_policy.gangs import Gangs
from alto_policy.rounds import Rounds
from alto_policy.types import GpuId, Task, TaskId
from alto_policy.view import ClusterView, ExecutorStatus, Status

__all__ = ["Preemptive", "Service"]

_LONGEST_SLEEP = 256  # rounds: each doubling costs a sort of all tasks
_REPLANNED = TaskArrived | TaskCancelled | ExecutorDown | NodeUp | TimerFired
_RESIDENT = (Status.RUNNING, Status.PAUSING, Status.STOPPING)


@dataclass(slots=True)
class Service:
    """What an unfinished task has had of the cluster."""

    task: Task
    number: int  # in the order of arrival
    arrived: float
    served: float = 0.0  # seconds with its executor up, but for the present stay
    up_since: float | None = None
    yields: bool = False  # it is giving its GPUs back, and will wait again

    def seconds(self, now: float) -> float:
        return self.served if self.up_since is None else self.served + (now - self.up_since)


class Preemptive(ABC, Dispatch):
    """Plans anew when a task arrives or frees its GPUs, or else once in a round.

    In between, GPUs that fall free are filled in the same order. A task that gives way pauses its
    jobs, and its executor stops when the last of them has left; they go on where they were. Rounds
    at which nothing can change are slept through.
    """

    keeps_order = True

    def __init__(self, round_seconds: float | None = None) -> None:
        """Without rounds, plans anew at every arrival and end."""
        super().__init__()
        self.round_seconds = round_seconds
        self._services: dict[TaskId, Service] = {}
        self._num_arrived = 0
        self._rounds = Rounds(round_seconds or math.inf)

    @abstractmethod
    def urgencies(self, services: Sequence[Service], now: float, num_gpus: int) -> Sequence[float]:
        """One number for each unfinished task: the lowest is served first."""

    def steady_until(self, services: Sequence[Service], now: float) -> float:
        """Until when tasks that wait only rise past those that run, and never fall back again.

        So long a sleep is safe if the order is the same at its two ends. None is, by default.
        """
        return now

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]:
        match event:
            case TimerFired() if not self._rounds.begins(event.t):
                return ()
            case JobLeft(job=job) if (task := cluster.task_of(job)).id in self._services:
                if self._services[task.id].yields:
                    return tuple(_stop_if_empty(task, cluster))
        self._keep_account(event, cluster)
        decisions = super().observe(event, cluster)
        if isinstance(event, _REPLANNED):
            decisions = (*decisions, *self._plan(event, cluster))
        if self.round_seconds is None or isinstance(event, LossReported):
            return decisions
        return (*decisions, *self._await_round(event, cluster, has_decided=bool(decisions)))

    def _keep_account(self, event: Event, cluster: ClusterView) -> None:
        match event:
            case TaskArrived(t=now, task=task):
                if task.num_gpus <= self.gangs(cluster).widest:
                    self._services[task.id] = Service(task, self._num_arrived, now)
                    self._num_arrived += 1
            case TaskCancelled(task=task_id) if cluster.executor(task_id) is None:
                del self._services[task_id]
            case TaskCancelled(task=task_id):
                self._services[task_id].yields = True
            case ExecutorUp(t=now, task=task_id):
                self._services[task_id].up_since = now
            case ExecutorDown(t=now, task=task_id):
                self._end_stay(self._services[task_id], now, cluster)

    def _wait(self, task: Task) -> None:
        """The order of those that wait changes with time: no queue can hold it."""

    def _start_executors(self, cluster: ClusterView) -> tuple[StartExecutor, ...]:
        return ()  # it is part of the plan

    def _end_stay(self, service: Service, now: float, cluster: ClusterView) -> None:
        service.served, service.up_since, service.yields = service.seconds(now), None, False
        if not cluster.is_waiting(service.task.id):
            del self._services[service.task.id]

    def _plan(self, event: Event, cluster: ClusterView) -> Iterator[Decision]:
        if not self._has_waiting(cluster):
            return
        may_preempt = self.round_seconds is None or isinstance(event, TimerFired)
        services = self._ordered(event.t, cluster)
        yield from _Plan(services, cluster, self.gangs(cluster)).decide(may_preempt=may_preempt)

    def _has_waiting(self, cluster: ClusterView) -> bool:
        return any(cluster.is_waiting(task) for task in self._services)

    def _await_round(
        self, event: Event, cluster: ClusterView, *, has_decided: bool
    ) -> Iterator[WakeAt]:
        """Rounds go on as long as a task waits at them."""
        rounds, is_round = self._rounds, isinstance(event, TimerFired)
        if rounds.last is not None and not is_round:
            if (at := rounds.wake(event.t)) is not None:
                yield WakeAt(at)
        elif isinstance(event, TaskArrived | ExecutorDown | NodeUp | TimerFired):
            if self._has_waiting(cluster):
                may_sleep = is_round and not has_decided
                count = self._same_rounds(event.t, cluster) if may_sleep else 0
                yield WakeAt(rounds.sleep(event.t, count + 1))
            else:
                rounds.end()

    def _same_rounds(self, now: float, cluster: ClusterView) -> int:
        """How many of the next rounds would decide nothing, as this one, if nothing happens.

        With every executor up, a plan depends on no more than which tasks that run stand behind
        each one that waits.
        """
        services = list(self._services.values())
        executors = [cluster.executor(service.task.id) for service in services]
        up = [each is not None and each.status is ExecutorStatus.UP for each in executors]
        if any(s.yields or (e and not u) for s, e, u in zip(services, executors, up, strict=True)):
            return 0
        width, rounds = len(cluster.gpus), 1

        def ahead(at: float) -> list[int]:
            """Of each task that runs, those that wait before it."""
            urgencies = self.urgencies(services, at, width)
            ranked = sorted(zip(urgencies, (s.number for s in services), up, strict=True))
            waiting, found = 0, []
            for _, number, is_up in ranked:
                if is_up:
                    found.append((number, waiting))
                else:
                    waiting += 1
            return [count for _, count in sorted(found)]

        present, horizon = ahead(now), self.steady_until(services, now)
        while rounds < _LONGEST_SLEEP:
            at = now + rounds * self._rounds.seconds
            if at > horizon or ahead(at) != present:
                break
            rounds *= 2
        return rounds // 2

    def _ordered(self, now: float, cluster: ClusterView) -> list[Service]:
        services = list(self._services.values())
        ranked = zip(self.urgencies(services, now, len(cluster.gpus)), services, strict=True)
        return [s for _, s in sorted(ranked, key=lambda pair: (pair[0], pair[1].number))]


class _Plan:
    """Gives room to tasks in their order: free GPUs, those that fall free, those of less urgent."""

    def __init__(self, services: Sequence[Service], cluster: ClusterView, gangs: Gangs) -> None:
        self._services = services
        self._cluster = cluster
        self._gangs = gangs
        self._free = cluster.free_gpus()
        self._room = self._free  # what is free now or soon
        self._victims: list[Service] = []  # may yield, the least urgent last
        for service in services:
            executor = cluster.executor(service.task.id)
            if executor is not None:
                if service.yields or executor.status is ExecutorStatus.STOPPING:
                    self._add_room(executor.gpus)
                else:
                    self._victims.append(service)

    def decide(self, *, may_preempt: bool) -> Iterator[Decision]:
        for service in self._services:
            if not (self._room or (may_preempt and self._victims)):
                return
            if self._victims and self._victims[0] is service:
                self._victims.pop(0)
            elif self._cluster.is_waiting(service.task.id):
                width = service.task.num_gpus
                yielding = self._make_room(width) if may_preempt else []
                for victim in yielding:
                    yield from _yield_gpus(victim, self._cluster)
                if self._gangs.fits(self._room, width):
                    yield from self._start(service.task)

    def _make_room(self, width: int) -> list[Service]:
        """The least urgent tasks that must yield for the width to fit; none if it cannot."""
        room, count = self._room, len(self._victims)
        while not self._gangs.fits(self._room, width) and count:
            count -= 1
            self._add_room(self._gpus(self._victims[count]))
        if not self._gangs.fits(self._room, width):
            self._room = room
            return []
        yielding = self._victims[count:]
        del self._victims[count:]
        return yielding

    def _start(self, task: Task) -> Iterator[StartExecutor]:
        """Now if its GPUs are free, else they are kept for it."""
        if self._gangs.fits(self._free, task.num_gpus):
            gang, self._free = self._gangs.take(self._free, task.num_gpus)
            self._room = tuple(gpu for gpu in self._room if gpu not in gang)
            yield StartExecutor(task.id, gang)
        else:
            gang, self._room = self._gangs.take(self._room, task.num_gpus)
            self._free = tuple(gpu for gpu in self._free if gpu not in gang)

    def _add_room(self, gpus: tuple[GpuId, ...]) -> None:
        self._room = tuple(sorted((*self._room, *gpus)))

    def _gpus(self, service: Service) -> tuple[GpuId, ...]:
        executor = self._cluster.executor(service.task.id)
        assert executor is not None
        return executor.gpus


def _yield_gpus(service: Service, cluster: ClusterView) -> Iterator[Pause | StopExecutor]:
    service.yields = True
    for job in cluster.jobs(service.task.id, Status.RUNNING):
        yield Pause(job)
    yield from _stop_if_empty(service.task, cluster)


def _stop_if_empty(task: Task, cluster: ClusterView) -> Iterator[StopExecutor]:
    """End an executor that no job is in."""
    if not any(cluster.jobs(task.id, status) for status in _RESIDENT):
        yield StopExecutor(task.id)
