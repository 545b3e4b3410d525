"""Small workloads with losses and times that can be worked out by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alto_policy.controller import Controller, run
from alto_policy.decisions import Decision, Launch, StartExecutor
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
from alto_policy.ledger.cluster import Cluster
from alto_policy.memory import MemoryModel
from alto_policy.runlog import Entry
from alto_policy.types import Gpu, GpuId, Hyperparameters, Job, JobId, Task, TaskId
from alto_policy.view import ClusterView, Policy
from alto_sim.cluster.backend import SimBackend
from alto_sim.curves.losses import LossCurves, Losses
from alto_sim.machines.latencies import Latencies
from alto_sim.times.overheads import NO_OVERHEADS, Overheads
from alto_sim.times.step_time import StepTime
from alto_sim.workloads.workload import Workload

__all__ = [
    "MEMORY",
    "NOW",
    "SECOND",
    "Flat",
    "Scripted",
    "gpus",
    "job",
    "news",
    "play",
    "sim",
    "task",
]

NOW = Latencies(start=0, load=0, launch=0, report=0, pause=0, checkpoint=0, stop=0)
SECOND = StepTime(per_pass=1.0, per_token=0.0, per_evaluation=0.0)
T = TaskId("t")


def gpus(count: int = 1) -> tuple[Gpu, ...]:
    return tuple(Gpu(id=GpuId(i), kind="sim") for i in range(count))


def job(name: str, steps: int, reports: int, *, batch_size: int = 1, accumulation: int = 1) -> Job:
    chosen = Hyperparameters(batch_size=batch_size, accumulation=accumulation)
    return Job(id=JobId(name), hyperparameters=chosen, steps=steps, reports=reports)


def task(name: str, jobs: Sequence[Job], num_gpus: int = 1) -> Task:
    return Task(id=TaskId(name), jobs=tuple(jobs), backbone="sim", max_length=1, num_gpus=num_gpus)


# A job takes as many bytes as its batch size.
MEMORY = MemoryModel(capacity=99, fixed=0, per_rank=0, per_token=1)


@dataclass(frozen=True, slots=True)
class Flat:
    """Every loss is 1; training breaks down at the steps given."""

    broken: tuple[tuple[str, int], ...] = ()

    def losses(self, job: Job, step: int) -> Losses:
        return Losses(float("nan") if (job.id, step) in self.broken else 1.0, 1.0)

    def report_step(self, job: Job, step: int) -> int:
        breaks = [at for name, at in self.broken if name == job.id and at > step]
        return min(job.next_report_step(step), *breaks, job.steps)


class Scripted:
    """Launches the first jobs of task t together, and answers news by a script."""

    def __init__(self, script: Mapping[str, Sequence[Decision]], launched: Sequence[str]) -> None:
        self._script = script
        self._launched = tuple(JobId(name) for name in launched)

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]:
        answer = tuple(self._script.get(told(event), ()))
        match event:
            case TaskArrived(task=task):
                return (StartExecutor(task.id, (GpuId(0),)), *answer)
            case ExecutorUp():
                return (Launch(T, GpuId(0), self._launched), *answer)
            case _:
                return answer


def told(event: Event) -> str:
    match event:
        case TaskArrived(task=task):
            return f"{task.id} arrived"
        case TaskCancelled(task=name):
            return f"{name} cancelled"
        case TaskResized(task=name, num_gpus=num_gpus):
            return f"{name} for {num_gpus} GPUs"
        case ExecutorUp(task=name):
            return f"{name} up"
        case ExecutorDown(task=name) | NodeDown(node=name):
            return f"{name} down"
        case LossReported(job=name, step=step):
            return f"{name}@{step}"
        case JobLeft(job=name, how=how):
            return f"{name} {how.value}"
        case NodeUp(node=name):
            return f"{name} up"
        case TimerFired():
            return "timer"


def sim(
    jobs: Sequence[Job],
    *,
    curves: LossCurves | None = None,
    step_time: StepTime = SECOND,
    latencies: Latencies = NOW,
    overheads: Overheads = NO_OVERHEADS,
) -> SimBackend:
    workload = Workload(
        arrivals=(TaskArrived(0.0, task("t", jobs)),),
        curves=curves or Flat(),
        step_time=step_time,
        latencies=latencies,
        overheads=overheads,
        memory=MEMORY,
    )
    return SimBackend(workload, gpus())


def play(policy: Policy, backend: SimBackend, num_gpus: int = 1) -> list[Entry]:
    entries: list[Entry] = []
    run(Controller(policy, Cluster(gpus(num_gpus)), entries.append), backend)
    return entries


def news(
    backend: SimBackend,
    script: Mapping[str, Sequence[Decision]] | None = None,
    launched: Sequence[str] = ("a", "b"),
) -> list[tuple[float, str]]:
    """What is told after the executor is up, and when."""
    entries = play(Scripted(script or {}, launched), backend)
    return [(entry.event.t, told(entry.event)) for entry in entries][2:]
