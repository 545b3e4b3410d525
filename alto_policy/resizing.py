"""Tasks that take more GPUs where some idle, and fewer where others wait."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from alto_policy.decisions import Decision, Pause, Resize, StartExecutor, Stop, WakeAt
from alto_policy.events import (
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    TaskArrived,
    TaskResized,
)
from alto_policy.gangs import Free, Gangs
from alto_policy.types import Task, TaskId
from alto_policy.view import ClusterView, Executor, ExecutorStatus, Policy, Status
from alto_policy.width_shares import Claim, width_shares
from alto_policy.yielding import stop_if_empty, yield_gpus

__all__ = ["Elastic", "ElasticRules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticRules:
    payback: float = 5.0  # starts of an executor that the time must be worth that they cost
    round_seconds: float = 60.0  # between two looks at tasks that train

    def __post_init__(self) -> None:
        if self.payback < 0:
            raise ValueError(f"payback must not be negative, got {self.payback}")
        if self.round_seconds < 0:
            raise ValueError(f"round_seconds must not be negative, got {self.round_seconds}")


@dataclass(frozen=True, slots=True)
class _Stay:
    """Of an executor that is up."""

    since: float
    start_seconds: float  # that it took to come up
    samples: int  # that its task's jobs had trained by then, by their reports


class Elastic:
    """Leaves it to another policy who is next, and which jobs train; says on how many GPUs.

    All share the GPUs evenly by the jobs that are left to them. Who is not started yet takes what
    is free of its share. One that trains gives way, and begins anew with another width, if others
    wait for what it has beyond its share, or what it lacks of that is idle: both only where what
    is left of it, at the pace since its start, takes long beside such a start.
    """

    def __init__(
        self,
        within: Policy,
        rules: ElasticRules,
        *,
        same_node: bool = True,
        quota: Callable[[str], int | None] = lambda tenant: None,
    ) -> None:
        """`within` starts a task again that was resized or has come back, as `Dispatch` does. A
        tenant's tasks hold no more GPUs than its quota."""
        self._within = within
        self._rules = rules
        self._same_node = same_node
        self._quota = quota
        self._gangs: Gangs | None = None
        self._open: dict[TaskId, None] = {}  # and some that are over
        self._asked: dict[TaskId, int] = {}  # widths that nothing was told of yet
        self._yielding: set[TaskId] = set()
        self._started_at: dict[TaskId, float] = {}
        self._stays: dict[TaskId, _Stay] = {}
        self._looked_at = -math.inf

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]:
        left = cluster.task_of(event.job).id if isinstance(event, JobLeft) else None
        if left in self._yielding:
            return tuple(stop_if_empty(left, cluster))
        self._hear(event, cluster)
        decisions = self._within.observe(event, cluster)
        if self._may_look(event):
            decisions = tuple(self._look(event.t, decisions, cluster))
        for decision in decisions:
            if isinstance(decision, StartExecutor):
                self._started_at[decision.task] = event.t
        return decisions

    def _hear(self, event: Event, cluster: ClusterView) -> None:
        if isinstance(event, TaskArrived):
            self._open[event.task.id] = None
        elif isinstance(event, TaskResized):
            self._asked.pop(event.task, None)
        elif isinstance(event, ExecutorUp):
            took = event.t - self._started_at.pop(event.task)
            samples, _ = _samples(cluster.tasks()[event.task], cluster)
            self._stays[event.task] = _Stay(event.t, took, samples)
        elif isinstance(event, ExecutorDown):
            self._stays.pop(event.task, None)
            self._yielding.discard(event.task)

    def _may_look(self, event: Event) -> bool:
        """Reports and departures are many, and each changes little."""
        next_look = self._looked_at + self._rules.round_seconds
        if isinstance(event, LossReported | JobLeft) and event.t < next_look:
            return False
        self._looked_at = event.t
        return True

    def _look(
        self, now: float, decisions: Sequence[Decision], cluster: ClusterView
    ) -> Iterator[Decision]:
        """What was decided, but for starts of those that are to be resized first."""
        for task in [name for name in self._open if _is_over(name, cluster)]:
            del self._open[task]
        holding = [task for task in self._open if cluster.executor(task)]
        starting = [one.task for one in decisions if isinstance(one, StartExecutor)]
        self._gangs = gangs = Gangs.of(cluster.gpus, self._gangs, same_node=self._same_node)
        claims = {n: _claim(n, gangs, cluster) for n in (*holding, *cluster.waiting())}
        if not any(claim.task.widths for claim in claims.values()):
            yield from decisions
            return
        plan = _Plan(claims, holding, self._quotas(claims.values()), cluster, gangs)
        widths = {
            name: plan.width(claims[name])
            for name in dict.fromkeys((*starting, *cluster.waiting()))
        }
        for decision in decisions:
            if not isinstance(decision, StartExecutor) or _is_as_wide(decision, widths):
                yield decision
        for name, width in widths.items():
            if width != self._asked.get(name, claims[name].task.num_gpus):
                self._asked[name] = width
                yield Resize(name, width)
        if self._yielding or any(_is_leaving(name, cluster) for name in holding):
            return  # what falls free is shared out first
        decided = {_task_of(decision, cluster) for decision in decisions}
        left = {
            name: 0.0 if name in decided else self._starts_left(name, now, cluster)
            for name in holding
        }
        for name in plan.giving_way(left, self._rules.payback):
            self._yielding.add(name)
            yield from yield_gpus(name, cluster)

    def _quotas(self, claims: Iterable[Claim]) -> dict[str, int]:
        """Of the tenants that have one."""
        tenants = dict.fromkeys(claim.task.tenant for claim in claims)
        found = {tenant: self._quota(tenant) for tenant in tenants}
        return {tenant: quota for tenant, quota in found.items() if quota is not None}

    def _starts_left(self, name: TaskId, now: float, cluster: ClusterView) -> float:
        """How many starts of an executor the task will last on its GPUs; none where that is not
        known, or it has hardly begun there."""
        stay = self._stays.get(name)
        if stay is None:
            return 0.0
        samples, left = _samples(cluster.tasks()[name], cluster)
        up, done = now - stay.since, samples - stay.samples
        if done <= 0 or up < self._rules.payback * stay.start_seconds:
            return 0.0
        seconds = up * left / done
        return seconds / stay.start_seconds if stay.start_seconds else math.inf


class _Plan:
    """Widths for those that wait, and who gives way to them, or to have more."""

    def __init__(
        self,
        claims: Mapping[TaskId, Claim],
        holding: Sequence[TaskId],
        quotas: dict[str, int],
        cluster: ClusterView,
        gangs: Gangs,
    ) -> None:
        self._claims, self._gangs = claims, gangs
        self._free: Free = cluster.free_gpus()
        self._holds = {name: _executor(name, cluster).gpus for name in holding}
        room = len(self._free) + sum(len(gpus) for gpus in self._holds.values())
        self._shares = width_shares(tuple(claims.values()), room, quotas)
        self._quotas = quotas  # what is left of them
        for name, gpus in self._holds.items():
            if (tenant := claims[name].task.tenant) in quotas:
                quotas[tenant] -= len(gpus)
        self._short: dict[TaskId, bool] = {}  # find no GPUs: whether their tenant may have more

    def width(self, claim: Claim) -> int:
        """Of one that waits: as much of its share as is free, or the least. It is asked of each."""
        task, least = claim.task, claim.widths[0]
        quota = self._quotas.get(task.tenant, max(least, len(self._free)))
        fitting = [
            width
            for width in claim.widths
            if width <= min(quota, self._shares[task.id])
            and self._gangs.fits(self._free, width, task.kinds)
        ]
        if fitting:
            _, self._free = self._gangs.take(self._free, fitting[-1], task.kinds)
            if task.tenant in self._quotas:
                self._quotas[task.tenant] -= fitting[-1]
            return fitting[-1]
        self._short[task.id] = least <= quota
        return least

    def giving_way(self, starts_left: Mapping[TaskId, float], payback: float) -> Sequence[TaskId]:
        """Those that begin anew with another width."""
        worth = [name for name in self._holds if starts_left[name] > payback]
        surplus = {name: len(self._holds[name]) - self._shares[name] for name in worth}
        giving = sorted((n for n in surplus if surplus[n] > 0), key=lambda n: -surplus[n])
        for name, may_have_more in self._short.items():
            tenant = None if may_have_more else self._claims[name].task.tenant
            if found := self._making_room(self._claims[name], giving, tenant):
                return found
        if any(self._short.values()):
            return ()
        gains = {name: starts_left[name] * self._faster(name) for name in worth}
        best = max(gains, key=lambda name: gains[name], default=None)
        return (best,) if best is not None and gains[best] > payback else ()

    def _making_room(
        self, short: Claim, giving: Iterable[TaskId], tenant: str | None
    ) -> Sequence[TaskId]:
        """As few as must for it to have its least, of the tenant alone if one is named; none if all
        are not enough."""
        least, kinds = short.widths[0], short.task.kinds
        room, spare = self._free, len(self._free)
        found: list[TaskId] = []
        for name in giving:
            if tenant is None or self._claims[name].task.tenant == tenant:
                found.append(name)
                spare += len(self._holds[name]) - self._shares[name]
                room = tuple(sorted((*room, *self._holds[name])))
                if spare >= least and self._gangs.fits(room, least, kinds):
                    return found
        return ()

    def _faster(self, name: TaskId) -> float:
        """The part of its time that the task would save with what is free of its share."""
        task, gpus = self._claims[name].task, self._holds[name]
        room = tuple(sorted((*self._free, *gpus)))
        quota = len(gpus) + self._quotas.get(task.tenant, len(room))
        most = min(self._shares[name], quota)
        wider = [
            width
            for width in self._claims[name].widths
            if len(gpus) < width <= most and self._gangs.fits(room, width, task.kinds)
        ]
        return 1 - len(gpus) / wider[-1] if wider else 0.0


def _claim(name: TaskId, gangs: Gangs, cluster: ClusterView) -> Claim:
    task = cluster.tasks()[name]
    jobs = len(task.jobs) - len(cluster.jobs(name, Status.ENDED))
    widths = tuple(
        width
        for width in task.widths
        if width == task.widths[0] or (width <= jobs and gangs.can_hold(width, task.kinds))
    )
    executor = cluster.executor(name)
    held = 0 if executor is None else len(executor.gpus)
    return Claim(task, widths or (task.num_gpus,), jobs, held)


def _task_of(decision: Decision, cluster: ClusterView) -> TaskId | None:
    if isinstance(decision, Pause | Stop):
        return cluster.task_of(decision.job).id
    return None if isinstance(decision, WakeAt) else decision.task


def _is_as_wide(start: StartExecutor, widths: Mapping[TaskId, int]) -> bool:
    return len(start.gpus) == widths[start.task]


def _executor(name: TaskId, cluster: ClusterView) -> Executor:
    executor = cluster.executor(name)
    assert executor is not None, "it holds GPUs"
    return executor


def _is_leaving(name: TaskId, cluster: ClusterView) -> bool:
    return _executor(name, cluster).status is ExecutorStatus.STOPPING


def _is_over(name: TaskId, cluster: ClusterView) -> bool:
    return cluster.executor(name) is None and not cluster.is_waiting(name)


def _samples(task: Task, cluster: ClusterView) -> tuple[int, int]:
    """That its jobs have trained, by their reports, and that are left to those that go on."""
    done = left = 0
    for job in task.jobs:
        history = cluster.history(job.id)
        step = history[-1].step if history else 0
        done += job.samples(step)
        if cluster.status(job.id) is not Status.ENDED:
            left += job.samples(job.steps - step)
    return done, left
