"""Follows a log by itself and checks that nothing is over-committed, lost or doubled."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from alto_policy.decisions import Launch, StartExecutor, Stop
from alto_policy.events import (
    Departure,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    NodeDown,
    NodeUp,
    TaskArrived,
    TaskResized,
)
from alto_policy.memory import MemoryModel
from alto_policy.runlog import Entry
from alto_policy.types import Job, Task

__all__ = ["Audit"]

_ENDS = (Departure.FINISHED, Departure.STOPPED, Departure.FAILED)


@dataclass
class Audit:
    """The ledger does not watch itself: this one knows the log alone."""

    num_gpus: int
    gpus_per_node: int = 3
    kinds: Mapping[int, str] = field(default_factory=dict)  # of GPUs, where they are of several
    bytes: Mapping[str, int] = field(default_factory=dict)  # of a GPU of each kind
    lost: set[int] = field(default_factory=set)  # GPUs of nodes that are down
    owner: dict[int, str] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    memory: dict[str, MemoryModel] = field(default_factory=dict)
    on: dict[str, int] = field(default_factory=dict)  # GPU of each resident job
    since: dict[str, float] = field(default_factory=dict)
    served: dict[str, float] = field(default_factory=dict)  # seconds of each job on a GPU
    ended: dict[str, str] = field(default_factory=dict)  # how
    stopped: set[str] = field(default_factory=set)  # while they held no memory, or will be
    now: float = 0.0

    def follow(self, entries: Iterable[Entry], *, conserves_work: bool) -> None:
        for entry in entries:
            assert entry.event.t >= self.now
            self.now = entry.event.t
            self._hear(entry)
            for decision in entry.decisions:
                if isinstance(decision, StartExecutor):
                    assert len(set(decision.gpus)) == self.tasks[decision.task].num_gpus
                    assert not set(decision.gpus) & set(self.owner)
                    assert not set(decision.gpus) & self.lost
                    self._check_kinds(self.tasks[decision.task], decision.gpus)
                    self.owner |= dict.fromkeys(decision.gpus, decision.task)
                if isinstance(decision, Launch):
                    self._launch(decision)
                if isinstance(decision, Stop):
                    self.stopped.add(decision.job)
            if conserves_work:
                free = set(range(self.num_gpus)) - self.lost - set(self.owner)
                assert not any(self._finds(task, free) for task in self._waiting())

    @property
    def jobs(self) -> Mapping[str, Job]:
        return {job.id: job for task in self.tasks.values() for job in task.jobs}

    def check_end(self) -> None:
        """Nothing is left behind: every job has ended once, every GPU is free."""
        assert not self.owner
        assert not self.on
        assert set(self.jobs) <= set(self.ended) | self.stopped

    def _finds(self, task: Task, free: set[int]) -> bool:
        """Whether so many GPUs are free of one kind that holds the task, or of all of them together
        if no kind has so many at all."""
        of_kind = Counter(self.kinds.get(gpu, "") for gpu in free)
        total = Counter(self.kinds.get(gpu, "") for gpu in range(self.num_gpus))
        kinds = [kind for kind in total if task.kinds is None or kind in task.kinds]
        if max((total[kind] for kind in kinds), default=0) >= task.num_gpus:
            return max(of_kind[kind] for kind in kinds) >= task.num_gpus
        return sum(of_kind[kind] for kind in kinds) >= task.num_gpus

    def _check_kinds(self, task: Task, gang: Sequence[int]) -> None:
        kinds = {self.kinds.get(gpu, "") for gpu in gang}
        allowed = set(self.kinds.values() or [""]) if task.kinds is None else set(task.kinds)
        assert kinds <= allowed
        total = Counter(self.kinds.values())
        assert len(kinds) == 1 or task.num_gpus > max(total[kind] for kind in allowed)

    def _waiting(self) -> Iterable[Task]:
        running = set(self.owner.values())
        for task in self.tasks.values():
            over = all(job.id in self.ended or job.id in self.stopped for job in task.jobs)
            if task.id not in running and not over:
                yield task

    def _hear(self, entry: Entry) -> None:
        match entry.event:
            case TaskArrived(task=task):
                self.tasks[task.id] = task
            case TaskResized(task=name, num_gpus=num_gpus):
                assert num_gpus in self.tasks[name].widths
                self.tasks[name] = replace(self.tasks[name], num_gpus=num_gpus)
            case ExecutorUp(task=name, memory=memory):
                self.memory[name] = memory
            case NodeDown(node=node):
                assert not self.lost & self._gpus(node)
                self.lost |= self._gpus(node)
            case NodeUp(node=node):
                assert self.lost >= self._gpus(node)
                self.lost -= self._gpus(node)
            case JobLeft(job=job, how=how):
                assert self.on[job] not in self.lost
                self._leave(job)
                if how in _ENDS:
                    assert job not in self.ended
                    self.ended[job] = how.value
            case ExecutorDown(task=name):
                for job in [each.id for each in self.tasks[name].jobs if each.id in self.on]:
                    self._leave(job)
                self.owner = {gpu: task for gpu, task in self.owner.items() if task != name}

    def _gpus(self, node: str) -> set[int]:
        first = int(node.removeprefix("node")) * self.gpus_per_node
        return set(range(first, first + self.gpus_per_node))

    def _launch(self, launch: Launch) -> None:
        assert launch.gpu not in self.lost
        assert self.owner[launch.gpu] == launch.task
        for job in launch.jobs:
            assert job not in self.on
            assert job not in self.ended
            self.on[job] = launch.gpu
            self.since[job] = self.now
        task = self.tasks[launch.task]
        here = [job for job in task.jobs if self.on.get(job.id) == launch.gpu]
        memory = self.memory[launch.task]
        held = memory.bytes(here, task.max_length)
        assert held <= memory.capacity
        gang = [gpu for gpu, owner in self.owner.items() if owner == launch.task]
        assert all(held <= self.bytes[self.kinds[gpu]] for gpu in gang if gpu in self.kinds)

    def _leave(self, job: str) -> None:
        del self.on[job]
        self.served[job] = self.served.get(job, 0.0) + self.now - self.since[job]
