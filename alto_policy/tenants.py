"""Whose task is next where tenants share GPUs: priority, then fair share, within quotas."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alto_policy.events import Event, ExecutorDown, ExecutorUp
from alto_policy.gangs import Gangs
from alto_policy.types import Task, TaskId
from alto_policy.view import ClusterView

__all__ = ["FairShare", "Tenant", "TenantRules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """What a tenant may have; one that is not named has the defaults."""

    name: str = ""
    share: float = 1.0  # of the GPU-seconds, against the shares of the others that wait
    priority: int = 0  # before all tenants of a lower one
    max_gpus: int | None = None  # that its tasks hold at once

    def __post_init__(self) -> None:
        if not 0 < self.share < math.inf:
            raise ValueError(f"share must be above 0, got {self.share}")
        if self.max_gpus is not None and self.max_gpus < 1:
            raise ValueError(f"max_gpus must be at least 1, got {self.max_gpus}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRules:
    """A week is the half-life that Slurm's fair share has by default (PriorityDecayHalfLife)."""

    tenants: tuple[Tenant, ...] = ()
    half_life_seconds: float = 604_800.0  # after which what was used counts half

    def __post_init__(self) -> None:
        names = [tenant.name for tenant in self.tenants]
        if len(set(names)) != len(names):
            raise ValueError(f"tenants must have distinct names, got {names}")
        if not 0 < self.half_life_seconds < math.inf:
            raise ValueError(f"half_life_seconds must be above 0, got {self.half_life_seconds}")

    def of(self, name: str) -> Tenant:
        found = (tenant for tenant in self.tenants if tenant.name == name)
        return next(found, Tenant(name=name))

    def quota(self, name: str) -> int | None:
        return self.of(name).max_gpus


@dataclass(slots=True)
class _Account:
    """GPU-seconds of a tenant, which fade, and the GPUs that it is using now."""

    rules: Tenant
    half_life: float
    used: float = 0.0
    at: float = 0.0
    up: int = 0  # GPUs whose executor is up: they count as used

    def bring_to(self, now: float) -> None:
        """Old use fades by half in a half-life, and so does what is used meanwhile."""
        kept = 2.0 ** ((self.at - now) / self.half_life)
        mean_life = self.half_life / math.log(2)
        self.used = self.used * kept + self.up * mean_life * (1.0 - kept)
        self.at = now


class FairShare:
    """Places waiting tasks, and keeps account of what their tenants have used.

    Of the tenants with the highest priority, the one that has used least for its share is next,
    with its task of the highest priority and the earliest arrival. No task is interrupted.
    """

    def __init__(self, rules: TenantRules) -> None:
        self._rules = rules
        self._accounts: dict[str, _Account] = {}
        self._up: dict[TaskId, tuple[Task, int]] = {}  # and how many GPUs its executor has
        self._placed: dict[TaskId, Task] = {}  # some of them have no executor any more
        self._gangs: Gangs | None = None
        self._now = 0.0

    def hear(self, event: Event, cluster: ClusterView) -> None:
        """Every event, before it is decided on."""
        self._now = event.t
        if isinstance(event, ExecutorUp):
            task = cluster.tasks()[event.task]
            executor = cluster.executor(task.id)
            assert executor is not None, "it has come up"
            self._up[task.id] = task, len(executor.gpus)
            self._change(task, len(executor.gpus))
        elif isinstance(event, ExecutorDown) and event.task in self._up:
            task, num_gpus = self._up.pop(event.task)
            self._change(task, -num_gpus)

    def is_beyond_quota(self, task: Task) -> bool:
        """Whether the tenant may never hold so many GPUs."""
        quota = self._rules.of(task.tenant).max_gpus
        return quota is not None and task.num_gpus > quota

    def place(self, tasks: Sequence[Task], cluster: ClusterView) -> Sequence[Task]:
        """Those of the waiting tasks that start now, in order; ties in the order of arrival."""
        free, held = cluster.free_gpus(), self._held(cluster)
        if not free:
            return ()
        self._gangs = Gangs.of(cluster.gpus, self._gangs)
        waiting: dict[str, list[Task]] = {}
        for task in tasks:
            waiting.setdefault(task.tenant, []).append(task)
        for name, queue in waiting.items():
            queue.sort(key=lambda task: -task.priority)
            self._account(name).bring_to(self._now)
        starting: list[Task] = []
        while waiting and free:
            name = min(waiting, key=lambda name: self._urgency(name, held))
            task = waiting[name].pop(0)
            if not waiting[name]:
                del waiting[name]
            quota = self._account(name).rules.max_gpus
            has_room = quota is None or held.get(name, 0) + task.num_gpus <= quota
            if has_room and self._gangs.fits(free, task.num_gpus, task.kinds):
                starting.append(task)
                self._placed[task.id] = task
                _, free = self._gangs.take(free, task.num_gpus, task.kinds)
                held[name] = held.get(name, 0) + task.num_gpus
        return starting

    def _urgency(self, name: str, held: Mapping[str, int]) -> tuple[int, float, float]:
        account = self._account(name)
        share = account.rules.share
        return -account.rules.priority, account.used / share, held.get(name, 0) / share

    def _held(self, cluster: ClusterView) -> dict[str, int]:
        """GPUs of each tenant's executors, those included that come up or go down."""
        self._placed = {name: task for name, task in self._placed.items() if cluster.executor(name)}
        held: dict[str, int] = {}
        for task in self._placed.values():
            if (executor := cluster.executor(task.id)) is not None:
                held[task.tenant] = held.get(task.tenant, 0) + len(executor.gpus)
        return held

    def _change(self, task: Task, num_gpus: int) -> None:
        account = self._account(task.tenant)
        account.bring_to(self._now)
        account.up += num_gpus

    def _account(self, name: str) -> _Account:
        if name not in self._accounts:
            rules = self._rules
            self._accounts[name] = _Account(rules.of(name), rules.half_life_seconds, at=self._now)
        return self._accounts[name]
