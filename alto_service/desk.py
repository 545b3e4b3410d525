"""Follows the log of a service study by study: who has come how far, and who has ended."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from alto_policy.decisions import Decision, Launch, Resize, StartExecutor, StopExecutor, WakeAt
from alto_policy.events import (
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    NodeDown,
    NodeUp,
    TaskArrived,
    TaskCancelled,
    TaskResized,
    TimerFired,
)
from alto_policy.ledger.cluster import Cluster, Status
from alto_policy.runlog import Entry
from alto_policy.types import Gpu, GpuId, JobId, TaskId
from alto_service.folder import number_of_task

__all__ = ["Desk", "StudyFile"]


@dataclass(slots=True)
class StudyFile:
    """All that has been logged of a study that has not been put away."""

    number: int
    tasks: list[TaskId] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    gpus: dict[GpuId, Gpu] = field(default_factory=dict)  # that its executors have had
    best: tuple[JobId, float] | None = None  # by validation loss
    is_up: bool = False  # an executor has come up

    def progress(self, cluster: Cluster) -> str:
        """JSON: jobs by status, and the best of them."""
        counts = {
            status.value: sum(len(cluster.jobs(task, status)) for task in self.tasks)
            for status in Status
        }
        best = None if self.best is None else {"job": self.best[0], "val_loss": self.best[1]}
        return json.dumps({"jobs": {name: n for name, n in counts.items() if n}, "best": best})

    def is_over(self, cluster: Cluster) -> bool:
        """All jobs have ended, and no executor holds a GPU."""
        return all(
            len(cluster.jobs(task, Status.ENDED)) == len(cluster.tasks()[task].jobs)
            and cluster.executor(task) is None
            for task in self.tasks
        )


class Desk:
    """Keeps a file for each study whose tasks have arrived, until it is put away."""

    def __init__(self, cluster: Cluster, gpus: Sequence[Gpu]) -> None:
        """With these GPUs the log begins."""
        self._cluster = cluster
        self._gpus = {gpu.id: gpu for gpu in gpus}
        self._files: dict[int, StudyFile] = {}
        self._touched: dict[int, None] = {}  # since it was last asked who has ended

    def file(self, entry: Entry) -> Iterator[StudyFile]:
        """Put what belongs to a study into its file: its own event, and decisions on its own jobs.

        A decision for one study on another's event stands beside a timer's in its place. Yields
        the files that have grown.
        """
        if isinstance(entry.event, NodeUp):
            self._gpus.update((gpu.id, gpu) for gpu in entry.event.gpus)
        parts: dict[int, list[Decision]] = {}
        owner = self._study_of_event(entry.event)
        if owner is not None:
            parts[owner] = []
        for decision in entry.decisions:
            if (number := self._study_of_decision(decision)) is not None:
                parts.setdefault(number, []).append(decision)
        for number, decisions in parts.items():
            event = entry.event if number == owner else TimerFired(entry.event.t)
            study = self._files.setdefault(number, StudyFile(number))
            study.entries.append(Entry(event, tuple(decisions)))
            _note(study, event)
            starts = [one for one in decisions if isinstance(one, StartExecutor)]
            study.gpus.update((gpu, self._gpus[gpu]) for one in starts for gpu in one.gpus)
            self._touched[number] = None
            yield study

    def ended(self, num_tasks: Callable[[int], int]) -> Iterable[StudyFile]:
        """Those that have ended since the last call, with all their tasks; they are put away."""
        touched = [self._files[number] for number in self._touched]
        self._touched.clear()
        over = [study for study in touched if study.is_over(self._cluster)]
        whole = [study for study in over if len(study.tasks) == num_tasks(study.number)]
        for study in whole:
            del self._files[study.number]
        return whole

    def _study_of_event(self, event: Event) -> int | None:
        match event:
            case TaskArrived(task=task):
                return number_of_task(task.id)
            case TaskCancelled(task=name) | TaskResized(task=name):
                return number_of_task(name)
            case ExecutorUp(task=name) | ExecutorDown(task=name):
                return number_of_task(name)
            case LossReported(job=job) | JobLeft(job=job):
                return number_of_task(self._cluster.task_of(job).id)
            case NodeDown() | NodeUp() | TimerFired():
                return None

    def _study_of_decision(self, decision: Decision) -> int | None:
        match decision:
            case StartExecutor(task=name) | StopExecutor(task=name) | Launch(task=name):
                return number_of_task(name)
            case Resize(task=name):
                return number_of_task(name)
            case WakeAt():
                return None
            case _:
                return number_of_task(self._cluster.task_of(decision.job).id)


def _note(study: StudyFile, event: Event) -> None:
    match event:
        case TaskArrived(task=task):
            study.tasks.append(task.id)
        case ExecutorUp():
            study.is_up = True
        case LossReported(job=job, val_loss=loss) if math.isfinite(loss):
            if study.best is None or loss < study.best[1]:
                study.best = job, loss
