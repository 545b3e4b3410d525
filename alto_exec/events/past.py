"""What a log says of the time before this process, to which a backend goes on."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from alto_exec.events.moving import NO_MOVE, Move
from alto_policy.decisions import Launch, Resize, StartExecutor, WakeAt
from alto_policy.events import (
    Event,
    ExecutorDown,
    LossReported,
    NodeDown,
    NodeUp,
    TaskArrived,
    TaskResized,
    TimerFired,
)
from alto_policy.runlog import Entry
from alto_policy.types import JobId, Task, TaskId

__all__ = ["Past"]


@dataclass(frozen=True, slots=True)
class Past:
    """What a log says of the time before this process."""

    end: float = 0.0
    tasks: tuple[Task, ...] = ()  # in the order of arrival
    executors: tuple[TaskId, ...] = ()  # started and not known to be down
    reported: tuple[tuple[JobId, int], ...] = ()  # last step that each job has reported
    timers: tuple[float, ...] = ()  # asked for and not yet fired
    starts: Mapping[TaskId, int] = field(default_factory=dict)  # of each task's executor
    stays: Mapping[JobId, int] = field(default_factory=dict)  # how often each job was launched
    lost_nodes: frozenset[str] = frozenset()  # that are down
    resizes: Mapping[TaskId, int] = field(default_factory=dict)  # asked for and not yet told
    move: Move = NO_MOVE  # to where the run goes on

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Past":
        entries = tuple(entries)
        end, tasks, reported = 0.0, list[Task](), dict[JobId, int]()
        executors: dict[TaskId, None] = {}
        timers: list[float] = []
        starts, stays = Counter[TaskId](), Counter[JobId]()
        for entry in entries:
            end = entry.event.t
            match entry.event:
                case TaskArrived(task=task):
                    tasks.append(task)
                case LossReported(job=job, step=step):
                    reported[job] = max(step, reported.get(job, 0))
                case ExecutorDown(task=task_id):
                    executors.pop(task_id, None)
                case TimerFired():
                    timers.remove(min(timers))
            for decision in entry.decisions:
                match decision:
                    case StartExecutor(task=task_id):
                        executors[task_id] = None
                        starts[task_id] += 1
                    case Launch(jobs=jobs):
                        stays.update(jobs)
                    case WakeAt(t=t):
                        timers.append(t)
        return cls(
            end=end,
            tasks=tuple(tasks),
            executors=tuple(executors),
            reported=tuple(reported.items()),
            timers=tuple(timers),
            starts=starts,
            stays=stays,
            lost_nodes=_lost_nodes(entry.event for entry in entries),
            resizes=_unanswered(entries),
        )

    def going(self, t: float) -> Sequence[Event]:
        """To be told before the loss of executors."""
        moved = {one.task for one in self.move.resized}  # with other choices than a policy had
        asked = [TaskResized(t, *one) for one in self.resizes.items() if one[0] not in moved]
        return (*self.move.going(t), *asked)


def _unanswered(entries: Iterable[Entry]) -> Mapping[TaskId, int]:
    """What was asked for last of each task that nothing was told of since."""
    asked: dict[TaskId, int] = {}
    for entry in entries:
        if isinstance(entry.event, TaskResized):
            asked.pop(entry.event.task, None)
        for decision in entry.decisions:
            if isinstance(decision, Resize):
                asked[decision.task] = decision.num_gpus
    return asked


def _lost_nodes(events: Iterable[Event]) -> frozenset[str]:
    lost: set[str] = set()
    for event in events:
        if isinstance(event, NodeDown):
            lost.add(event.node)
        elif isinstance(event, NodeUp):
            lost.discard(event.node)  # it may have joined
    return frozenset(lost)
