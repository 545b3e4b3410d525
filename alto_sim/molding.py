"""The widths of tasks that may have several: chosen when they arrive, kept until they end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from alto_policy.events import TaskArrived
from alto_policy.placement import mold
from alto_policy.types import Task
from alto_runs.errors import UserError
from alto_sim.belief import BelievedCosts
from alto_sim.workload import Workload

__all__ = ["molded"]


def molded(
    workload: Workload, widths: Sequence[int], num_gpus: int, costs: BelievedCosts
) -> Workload:
    """With the widths that are believed to be best: those who arrive at one moment share the
    cluster, and know of nobody else. Raises UserError."""
    if workload.durations:
        raise UserError("placement.widths: the jobs of this workload keep their widths")
    possible = [width for width in widths if width <= num_gpus]
    if not possible:
        raise UserError(
            f"placement.widths: value {list(widths)}: expected one up to the {num_gpus} GPUs"
        )
    arrivals = tuple(_molded(workload.arrivals, possible, num_gpus, costs))
    return replace(workload, arrivals=arrivals)


def _molded(
    arrivals: Sequence[TaskArrived], widths: Sequence[int], num_gpus: int, costs: BelievedCosts
) -> Iterator[TaskArrived]:
    seconds = {width: costs.durations().seconds for width in widths}  # each knows one width of all
    for t, together in groupby(arrivals, key=lambda arrival: arrival.t):
        tasks = [
            _Moldable(arrival.task, _least_width(arrival.task, widths, costs), seconds, costs)
            for arrival in together
        ]
        chosen = mold([task.seconds for task in tasks], widths, num_gpus)
        for task, (width, _) in zip(tasks, chosen, strict=True):
            yield TaskArrived(t, task.as_wide(width))


@dataclass(frozen=True, slots=True)
class _Moldable:
    task: Task
    least: int
    of_width: Mapping[int, Callable[[Task], float]]
    costs: BelievedCosts

    def as_wide(self, width: int) -> Task:
        return replace(self.task, num_gpus=max(width, self.least))

    def seconds(self, width: int) -> float:
        """Narrower than it can be it takes the GPU-seconds of the least width."""
        wide = self.as_wide(width)
        own = self.of_width[wide.num_gpus](wide) * self.costs.error(wide)
        return own * wide.num_gpus / width


def _least_width(task: Task, widths: Sequence[int], costs: BelievedCosts) -> int:
    """At which as many jobs fit as at any."""
    fitting: dict[int, int] = {}
    for width in sorted(widths):
        wide = replace(task, num_gpus=width)
        fitting[width] = costs.memory(wide).num_fitting(wide.jobs, wide.max_length)
    return max(fitting, key=lambda width: fitting[width])
