"""What preemptive policies share: the most urgent tasks hold the GPUs, others give way."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from alto_policy.decisions import Decision, StartExecutor, WakeAt
from alto_policy.dispatch import Dispatch
from alto_policy.estimates import DurationEstimate
from alto_policy.events import (
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    NodeUp,
    TaskArrived,
    TaskCancelled,
    TaskResized,
    TimerFired,
)
from alto_policy.gangs import Gangs
from alto_policy.rounds import Rounds
from alto_policy.types import GpuId, Task, TaskId
from alto_policy.view import ClusterView, ExecutorStatus
from alto_policy.yielding import stop_if_empty, yield_gpus

__all__ = ["Preemptive", "Service", "holdings"]

_LONGEST_SLEEP = 256  # rounds: each doubling costs a sort of all tasks
_REPLANNED = TaskArrived | TaskCancelled | TaskResized | ExecutorDown | NodeUp | TimerFired


@dataclass(slots=True)
class Service:
    """What an unfinished task has had of the cluster."""

    task: Task
    number: int  # in the order of arrival
    arrived: float
    believed: float  # seconds that it lasts; zero if the policy asks for none
    served: float = 0.0  # seconds with its executor up, but for the present stay
    up_since: float | None = None
    yields: bool = False  # it is giving its GPUs back, and will wait again

    def seconds(self, now: float) -> float:
        return self.served if self.up_since is None else self.served + (now - self.up_since)

    def resize(self, task: Task, now: float, estimate: DurationEstimate | None) -> None:
        """What it has had counts as the seconds in which its new GPUs would have given as much."""
        self.served = self.seconds(now) * self.task.num_gpus / task.num_gpus
        self.up_since = None if self.up_since is None else now
        self.task = task
        self.believed = estimate(task) if estimate is not None else 0.0


class Preemptive(ABC, Dispatch):
    """Plans anew when a task arrives or frees its GPUs, or else once in a round.

    In between, GPUs that fall free are filled in the same order. A task that gives way pauses its
    jobs, and its executor stops when the last of them has left; they go on where they were. Rounds
    at which nothing can change are slept through.
    """

    keeps_order = True

    def __init__(
        self, round_seconds: float | None = None, estimate: DurationEstimate | None = None
    ) -> None:
        """Without rounds, plans anew at every arrival and end."""
        super().__init__()
        self.round_seconds = round_seconds
        self._estimate = estimate
        self._services: dict[TaskId, Service] = {}
        self._holders: dict[TaskId, Service] = {}  # of GPUs; the others wait
        self._order: list[Service] = []
        self._ordered_at: float | None = None  # None if other tasks have come or gone since
        self._num_arrived = 0
        self._rounds = Rounds(round_seconds or math.inf)

    @abstractmethod
    def urgencies(self, services: Sequence[Service], now: float, num_gpus: int) -> Sequence[float]:
        """One number for each unfinished task: the lowest is served first.

        A task's number may depend on its own service and on which tasks there are, not on who
        holds GPUs: so the order of a moment stands while tasks come up and give way in it.
        """

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
                    return tuple(stop_if_empty(task.id, cluster))
        self._keep_account(event, cluster)
        decisions = super().observe(event, cluster)
        if isinstance(event, _REPLANNED):
            decisions = (*decisions, *self._plan(event, cluster))
        if self.round_seconds is not None and not isinstance(event, LossReported):
            wakes = self._await_round(event, cluster, has_decided=bool(decisions))
            decisions = (*decisions, *wakes)
        for decision in decisions:
            if isinstance(decision, StartExecutor):
                self._holders[decision.task] = self._services[decision.task]
        return decisions

    def _keep_account(self, event: Event, cluster: ClusterView) -> None:
        match event:
            case TaskArrived(t=now, task=task):
                if self.gangs(cluster).can_hold(task.num_gpus, task.kinds):
                    believed = self._estimate(task) if self._estimate is not None else 0.0
                    self._services[task.id] = Service(task, self._num_arrived, now, believed)
                    self._num_arrived += 1
                    self._ordered_at = None
            case TaskResized(t=now, task=task_id):
                if (service := self._services.get(task_id)) is not None:
                    service.resize(cluster.tasks()[task_id], now, self._estimate)
                    self._ordered_at = None
            case TaskCancelled(task=task_id) if cluster.executor(task_id) is None:
                self._forget(task_id)
            case TaskCancelled(task=task_id):
                self._services[task_id].yields = True
            case ExecutorUp(t=now, task=task_id):
                self._services[task_id].up_since = now
            case ExecutorDown(t=now, task=task_id):
                service = self._services[task_id]
                service.served, service.up_since = service.seconds(now), None
                service.yields = False
                del self._holders[task_id]
                if not cluster.is_waiting(task_id):
                    self._forget(task_id)

    def _wait(self, task: Task, cluster: ClusterView) -> None:
        """The order of those that wait changes with time: no queue can hold it."""

    def _start_executors(self, cluster: ClusterView) -> tuple[StartExecutor, ...]:
        return ()  # it is part of the plan

    def _forget(self, task: TaskId) -> None:
        del self._services[task]
        self._ordered_at = None

    def _plan(self, event: Event, cluster: ClusterView) -> Iterator[Decision]:
        if len(self._services) == len(self._holders):
            return  # none waits
        may_preempt = self.round_seconds is None or isinstance(event, TimerFired)
        plan = _Plan(self._holders, cluster, self.gangs(cluster), may_preempt=may_preempt)
        if plan.may_start:
            yield from plan.decide(self._ordered(event.t, cluster))

    def _needs_rounds(self, cluster: ClusterView) -> bool:
        """Whether a round might decide anything: where all tasks run, none does."""
        return len(self._services) > len(self._holders)

    def _await_round(
        self, event: Event, cluster: ClusterView, *, has_decided: bool
    ) -> Iterator[WakeAt]:
        """Rounds go on as long as they are needed."""
        rounds, is_round = self._rounds, isinstance(event, TimerFired)
        if rounds.last is not None and not is_round:
            if (at := rounds.wake(event.t)) is not None:
                yield WakeAt(at)
        elif isinstance(event, TaskArrived | TaskResized | ExecutorDown | NodeUp | TimerFired):
            if self._needs_rounds(cluster):
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
        executors = [cluster.executor(task) for task in self._holders]
        are_up = all(each is not None and each.status is ExecutorStatus.UP for each in executors)
        if not are_up or any(service.yields for service in self._holders.values()):
            return 0
        services = list(self._services.values())
        numbers = [service.number for service in services]
        holders = {service.number for service in self._holders.values()}
        width, rounds = len(cluster.gpus), 1

        def ahead(at: float) -> list[int]:
            """Of each task that runs, those that wait before it."""
            ranked = sorted(zip(self.urgencies(services, at, width), numbers, strict=True))
            waiting, found = 0, []
            for _, number in ranked:
                if number in holders:
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
        if self._ordered_at != now:
            services = list(self._services.values())
            urgencies = self.urgencies(services, now, len(cluster.gpus))
            numbers = [service.number for service in services]
            self._order = [s for _, _, s in sorted(zip(urgencies, numbers, services, strict=True))]
            self._ordered_at = now
        return self._order


class _Plan:
    """Gives room to tasks in their order: free GPUs, those that fall free, those of less urgent."""

    def __init__(
        self,
        holders: Mapping[TaskId, Service],
        cluster: ClusterView,
        gangs: Gangs,
        *,
        may_preempt: bool,
    ) -> None:
        self._cluster = cluster
        self._gangs = gangs
        self._free = cluster.free_gpus()
        room = list(self._free)  # what is free now or soon
        self._holds: dict[TaskId, tuple[GpuId, ...]] = {}  # of those that may yield
        for task, gpus, fall_free in holdings(holders, cluster):
            if fall_free:
                room += gpus
            elif may_preempt:
                self._holds[task] = gpus
        self._room = tuple(sorted(room))
        self._victims: list[Service] = []  # may yield, the least urgent last

    @property
    def may_start(self) -> bool:
        """Whether anybody could be given GPUs, whoever is first."""
        return bool(self._room or self._holds)

    def decide(self, services: Sequence[Service]) -> Iterator[Decision]:
        """For all unfinished tasks, the most urgent first."""
        if self._holds:
            self._victims = [each for each in services if each.task.id in self._holds]
        for service in services:
            if not (self._room or self._victims):
                return
            if self._victims and self._victims[0] is service:
                self._victims.pop(0)
            elif self._cluster.is_waiting(service.task.id):
                task = service.task
                for victim in self._make_room(task):
                    victim.yields = True
                    yield from yield_gpus(victim.task.id, self._cluster)
                if self._gangs.fits(self._room, task.num_gpus, task.kinds):
                    yield from self._start(task)

    def _make_room(self, task: Task) -> Sequence[Service]:
        """The least urgent tasks that must yield for the task to fit; none if it cannot."""
        gangs, width = self._gangs, task.num_gpus
        if not self._victims or gangs.fits(self._room, width, task.kinds):
            return ()
        for kinds in gangs.choices(width, task.kinds):
            room, yielding = self._room, list[Service]()
            for victim in reversed(self._victims):
                held = self._holds[victim.task.id]
                if gangs.has_any_of(held, kinds):
                    room += held
                    yielding.append(victim)
                    if gangs.fits(room, width, kinds):
                        gone = {one.number for one in yielding}
                        self._victims = [one for one in self._victims if one.number not in gone]
                        self._room = tuple(sorted(room))
                        return yielding[::-1]
        return ()

    def _start(self, task: Task) -> Iterator[StartExecutor]:
        """Now if its GPUs are free, else they are kept for it."""
        if self._gangs.fits(self._free, task.num_gpus, task.kinds):
            gang, self._free = self._gangs.take(self._free, task.num_gpus, task.kinds)
            self._room = tuple([gpu for gpu in self._room if gpu not in gang])
            yield StartExecutor(task.id, gang)
        else:
            gang, self._room = self._gangs.take(self._room, task.num_gpus, task.kinds)
            self._free = tuple([gpu for gpu in self._free if gpu not in gang])


def holdings(
    holders: Mapping[TaskId, Service], cluster: ClusterView
) -> Iterator[tuple[TaskId, tuple[GpuId, ...], bool]]:
    """The GPUs of each task that holds some, and whether they fall free soon."""
    for task, service in holders.items():
        executor = cluster.executor(task)
        assert executor is not None
        yield task, executor.gpus, service.yields or executor.status is ExecutorStatus.STOPPING
