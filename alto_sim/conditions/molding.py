"""The widths of tasks that may have several: chosen when they arrive, kept until they end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from alto_policy.events import TaskArrived
from alto_policy.placement.on_kinds import OnKinds, on_each
from alto_policy.placement.widening import Wide, mold, mold_on_kinds
from alto_policy.types import Task
from alto_runs.costs.durations import TaskDurations
from alto_runs.costs.kinds import KindDurations, Mixture
from alto_runs.errors import UserError
from alto_sim.conditions.belief import BelievedCosts
from alto_sim.workloads.workload import Workload, on_mixture

__all__ = ["molded"]


def molded(
    workload: Workload, widths: Sequence[int], counts: Mapping[str, int], costs: BelievedCosts
) -> Workload:
    """With the widths that are believed to be best on so many GPUs of each kind: those who arrive
    at one moment share the cluster, and know of nobody else. Raises UserError."""
    if workload.durations:
        raise UserError("placement.widths: the jobs of this workload keep their widths")
    num_gpus = sum(counts.values())
    possible = [width for width in widths if width <= num_gpus]
    if not possible:
        raise UserError(
            f"placement.widths: value {list(widths)}: expected one up to the {num_gpus} GPUs"
        )
    mixture = workload.mixture
    if mixture is None:
        arrivals = tuple(_molded(workload.arrivals, possible, num_gpus, costs))
        return replace(workload, arrivals=arrivals)
    several = _OnKinds(mixture, counts, sorted(possible), costs)
    arrivals = tuple(several.molded(workload.arrivals))
    return on_mixture(replace(workload, arrivals=arrivals), mixture, counts)


def _molded(
    arrivals: Sequence[TaskArrived], widths: Sequence[int], num_gpus: int, costs: BelievedCosts
) -> Iterator[TaskArrived]:
    seconds = {width: costs.durations().seconds for width in widths}  # each knows one width of all
    for t, together in groupby(arrivals, key=lambda arrival: arrival.t):
        tasks = [
            _Moldable(arrival.task, _widths_of(arrival.task, widths, costs), seconds, costs)
            for arrival in together
        ]
        chosen = mold([task.seconds for task in tasks], widths, num_gpus)
        for task, (width, _) in zip(tasks, chosen, strict=True):
            yield TaskArrived(t, task.as_wide(width))


@dataclass(frozen=True, slots=True)
class _Moldable:
    task: Task
    own: Mapping[int, int]  # its width, of each that it may be given
    of_width: Mapping[int, Callable[[Task], float]]
    costs: BelievedCosts

    def as_wide(self, width: int) -> Task:
        return replace(self.task, num_gpus=self.own[width])

    def seconds(self, width: int) -> float:
        """Narrower than it can be it takes the GPU-seconds of its own width."""
        wide = self.as_wide(width)
        own = self.of_width[wide.num_gpus](wide) * self.costs.error(wide)
        return own * wide.num_gpus / width


def _widths_of(task: Task, widths: Sequence[int], costs: BelievedCosts) -> Mapping[int, int]:
    fitting: dict[int, int] = {}
    for width in sorted(widths):
        wide = replace(task, num_gpus=width)
        fitting[width] = costs.memory(wide).num_fitting(wide.jobs, wide.max_length)
    return _useful(fitting)


def _useful(fitting: Mapping[int, int]) -> Mapping[int, int]:
    """Of each width the widest up to it, or else the least, at which as many jobs fit as at any; of
    widths in increasing order, and how many fit."""
    most = max(fitting.values())
    useful = [width for width, jobs in fitting.items() if jobs == most]
    return {width: max([own for own in useful if own <= width] or useful[:1]) for width in fitting}


class _OnKinds:
    """Widths where GPUs are of several kinds."""

    def __init__(
        self,
        mixture: Mixture,
        counts: Mapping[str, int],
        widths: Sequence[int],
        costs: BelievedCosts,
    ) -> None:
        self._mixture = mixture
        self._counts = counts
        self._widths = widths
        self._costs = costs
        # Each knows one width of all.
        self._durations: dict[int, TaskDurations | KindDurations] = {
            width: costs.durations() for width in widths
        }

    def molded(self, arrivals: Sequence[TaskArrived]) -> Iterator[TaskArrived]:
        for t, together in groupby(arrivals, key=lambda arrival: arrival.t):
            tasks = [arrival.task for arrival in together]
            made = {task.id: self._made(task) for task in tasks}
            held = [task.id for task in tasks if made[task.id]]
            chosen = mold_on_kinds(
                [made[name].__getitem__ for name in held],
                self._widths,
                tuple(self._counts.values()),
            )
            width_of = dict(zip(held, chosen, strict=True))
            for task in tasks:
                width = width_of.get(task.id, task.num_gpus)
                yield TaskArrived(t, replace(task, num_gpus=width, kinds=None, speeds=()))

    def _made(self, task: Task) -> dict[int, Wide]:
        """Of each width what it is made of, and how long it takes; nothing if no kind holds a
        job."""
        wides = {width: self._held(replace(task, num_gpus=width)) for width in self._widths}
        fitting = {width: self._fitting(wide) for width, wide in wides.items()}
        if not any(fitting.values()):
            return {}
        owns = _useful(fitting)
        on = {width: self._on(wides[width]) for width in set(owns.values())}
        return {width: (own, on[own]) for width, own in owns.items()}

    def _held(self, task: Task) -> Task:
        return replace(task, kinds=self._mixture.holding(task, self._counts), speeds=())

    def _fitting(self, task: Task) -> int:
        memories = (self._mixture.costs[kind].memory_model(task) for kind in task.kinds or ())
        return min((each.num_fitting(task.jobs, task.max_length) for each in memories), default=0)

    def _on(self, task: Task) -> OnKinds:
        durations = self._durations[task.num_gpus]
        assert isinstance(durations, KindDurations), "there are several kinds"
        told = durations.weighed(task)
        seconds = durations.seconds(told) * self._costs.error(task)
        return on_each(told, seconds, self._counts)
