"""Gavel's max-min fairness (Narayanan et al. 2020, sections 4.1 and 5)."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alto_policy.decisions import Decision
from alto_policy.events import Event, ExecutorDown, ExecutorUp, TimerFired
from alto_policy.gangs import Gangs
from alto_policy.kinds.pairs import KindRound, Pair
from alto_policy.kinds.shares import KindShares
from alto_policy.preemption import Preemptive, Service
from alto_policy.rounds import check_round
from alto_policy.types import TaskId
from alto_policy.view import ClusterView

__all__ = ["Gavel", "GavelSettings", "fair_share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GavelSettings:
    round_seconds: float = 360.0  # the paper's
    same_node: bool = False  # GPUs of a task are all of one node

    def __post_init__(self) -> None:
        check_round(self.round_seconds)


class Gavel(Preemptive):
    """Each task shall run for a fraction X of the time, and at each round the furthest behind runs.

    On one kind of GPU the program max min X * width, X <= 1, sum of X * width <= num_gpus is
    solved by filling up: X = min(1, share / width). The order is that of X / (fraction had so far),
    highest first.

    Where there are several kinds, and all tasks tell their speeds on them, each has an X on each
    kind, by `KindShares`; the order is that of pairs of a task and a kind. Tasks then move between
    kinds at rounds, none of which is slept through; GPUs that nobody has an X on go to whoever
    was there least.
    """

    def __init__(self, settings: GavelSettings) -> None:
        super().__init__(settings.round_seconds)
        self.same_node = settings.same_node
        self._shares: KindShares | None = None
        self._had: dict[TaskId, dict[str, float]] = {}  # seconds up in past stays, by kind
        self._kind_of: dict[TaskId, str] = {}  # of the present stay

    def steady_until(self, services: Sequence[Service], now: float) -> float:
        return math.inf

    def urgencies(self, services: Sequence[Service], now: float, num_gpus: int) -> Sequence[float]:
        share = fair_share([each.task.num_gpus for each in services], num_gpus)

        def urgency(service: Service) -> float:
            had = service.seconds(now)
            if had == 0:
                return -math.inf
            target = min(1.0, share / service.task.num_gpus)
            return -target * (now - service.arrived) / had

        return [urgency(service) for service in services]

    def _plan(self, event: Event, cluster: ClusterView) -> Iterator[Decision]:
        shares = self._weighed(cluster)
        if shares is None:
            yield from super()._plan(event, cluster)
            return
        may_preempt = isinstance(event, TimerFired)
        pairs = self._ranked(shares, event.t)
        plan = KindRound(self._holders, cluster, shares.gangs, may_preempt=may_preempt)
        yield from plan.decide(pairs)

    def _weighed(self, cluster: ClusterView) -> KindShares | None:
        """The shares of all unfinished tasks; None where kinds are not told apart."""
        gangs = self.gangs(cluster)
        services = self._services.values()
        if len(gangs.kinds) == 1 or not all(each.task.speeds for each in services):
            return None
        if self._shares is None or self._shares.gangs is not gangs:
            self._shares = KindShares(gangs)
        self._shares.divide([service.task for service in services])
        return self._shares

    def _ranked(self, shares: KindShares, now: float) -> Sequence[Pair]:
        """Those furthest behind their X first; what has none on a kind comes after all others,
        and whoever was there least is the first."""
        ranked: list[tuple[float, float, int, int, Pair]] = []
        for service in self._services.values():
            had = defaultdict(float, self._had.get(service.task.id, {}))
            if service.up_since is not None:
                had[self._kind_of[service.task.id]] += now - service.up_since
            for place, (kinds, fraction) in enumerate(shares.of(service.task)):
                seconds = math.fsum([had[kind] for kind in kinds])
                elapsed = now - service.arrived
                if fraction == 0:
                    urgency = math.inf, seconds / elapsed if elapsed else 0.0
                elif seconds == 0:
                    urgency = -math.inf, -fraction
                else:
                    urgency = -fraction * elapsed / seconds, 0.0
                ranked.append((*urgency, service.number, place, Pair(service, kinds)))
        return [pair for *_, pair in sorted(ranked, key=lambda row: row[:-1])]

    def _kind_held(self, task: TaskId, cluster: ClusterView, gangs: Gangs) -> str:
        """Of a task on several kinds one of them, for it is never on one alone."""
        executor = cluster.executor(task)
        assert executor is not None
        return gangs.place_of[executor.gpus[0]][0]

    def _needs_rounds(self, cluster: ClusterView) -> bool:
        """Tasks may also have to change kinds where none waits."""
        if super()._needs_rounds(cluster):
            return True
        shares = self._weighed(cluster)
        return shares is not None and any(
            self._kind_held(name, cluster, shares.gangs) not in kinds
            for name, service in self._holders.items()
            if not service.yields
            for kinds, fraction in shares.of(service.task)
            if fraction > 0
        )

    def _same_rounds(self, now: float, cluster: ClusterView) -> int:
        return super()._same_rounds(now, cluster) if self._weighed(cluster) is None else 0

    def _keep_account(self, event: Event, cluster: ClusterView) -> None:
        gangs = self.gangs(cluster)
        if len(gangs.kinds) > 1:
            if isinstance(event, ExecutorUp):
                self._had.setdefault(event.task, defaultdict(float))
                self._kind_of[event.task] = self._kind_held(event.task, cluster, gangs)
            elif isinstance(event, ExecutorDown):
                since = self._services[event.task].up_since
                if since is not None:
                    self._had[event.task][self._kind_of[event.task]] += event.t - since
        super()._keep_account(event, cluster)

    def _forget(self, task: TaskId) -> None:
        super()._forget(task)
        self._had.pop(task, None)
        self._kind_of.pop(task, None)


def fair_share(widths: Sequence[int], num_gpus: int) -> float:
    """GPUs that each task may hold on average: those that want less leave theirs to the others."""
    left = float(num_gpus)
    for done, width in enumerate(sorted(widths)):
        share = left / (len(widths) - done)
        if width >= share:
            return share
        left -= width
    return math.inf
