"""Logs of runs, written by hand: one of every fate that a job can have."""

import math
from collections.abc import Sequence
from pathlib import Path

from alto_policy.decisions import (
    Decision,
    ExitReason,
    Launch,
    Pause,
    StartExecutor,
    Stop,
)
from alto_policy.events import (
    Departure,
    Event,
    ExecutorUp,
    JobLeft,
    LossReported,
    TaskArrived,
)
from alto_policy.memory import MemoryModel
from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.runlog import Entry, Header, RunLog
from alto_policy.types import Gpu, GpuId, Hyperparameters, Job, JobId, Task, TaskId
from alto_runs.files.directory import LogWriter, RunDirectory

__all__ = ["FATES", "T", "entry", "fates", "gpus", "job", "launch", "log_of", "save", "task", "up"]

T = TaskId("t")


def gpus(count: int = 1) -> tuple[Gpu, ...]:
    return tuple(Gpu(id=GpuId(i), kind="toy") for i in range(count))


def job(name: str, *, steps: int = 10, reports: int = 5, rank: int = 4, batch_size: int = 2) -> Job:
    chosen = Hyperparameters(rank=rank, alpha=2.0 * rank, batch_size=batch_size)
    return Job(id=JobId(name), hyperparameters=chosen, steps=steps, reports=reports)


def task(name: str, jobs: Sequence[Job], num_gpus: int = 1) -> Task:
    return Task(id=TaskId(name), jobs=tuple(jobs), backbone="toy", max_length=1, num_gpus=num_gpus)


def entry(event: Event, *decisions: Decision) -> Entry:
    return Entry(event, decisions)


def up(t: float, name: str = "t", capacity: int = 99) -> ExecutorUp:
    """On GPUs where a job takes as many bytes as its batch size."""
    memory = MemoryModel(capacity=capacity, fixed=0, per_rank=0, per_token=1)
    return ExecutorUp(t, TaskId(name), memory)


def launch(*names: str, gpu: int = 0, of: str = "t") -> Launch:
    return Launch(TaskId(of), GpuId(gpu), tuple(map(JobId, names)))


def log_of(
    *entries: Entry,
    num_gpus: int = 1,
    policy: Settings | None = None,
    torn: str | None = None,
) -> RunLog:
    header = Header(policy=policy or AltoSettings(), gpus=gpus(num_gpus))
    return RunLog(header, entries, torn)


def save(log: RunLog, path: Path) -> RunDirectory:
    """A run directory with this log, as a killed run would leave it."""
    directory = RunDirectory.create(path)
    with LogWriter(directory.log_path) as writer:
        if log.header is not None:
            writer.write_header(log.header)
        for each in log.entries:
            writer.write_entry(each)
    return directory


FATES = (
    "finished",
    "hasty",  # done before it was told to stop
    "weak",
    "diverged",
    "broken",
    "failed",
    "evicted",
    "outranked",
    "cancelled",
    "paused",
    "running",
    "queued",
)


def fates() -> RunLog:
    """A run that goes on: a job of each name above, 10 steps of 2 samples, 5 reports."""

    def loss(t: float, name: str, step: int, val: float) -> LossReported:
        return LossReported(t, JobId(name), step, val - 0.5, val)

    def left(t: float, name: str, how: Departure) -> JobLeft:
        return JobLeft(t, JobId(name), how)

    def stop(name: str, reason: ExitReason) -> Stop:
        return Stop(JobId(name), reason)

    return log_of(
        entry(
            TaskArrived(2.0, task("t", [job(name) for name in FATES])),
            StartExecutor(T, (GpuId(0),)),
        ),
        entry(
            up(10.0),
            launch("finished", "hasty", "weak", "diverged", "broken", "failed", "evicted"),
            stop("cancelled", ExitReason.CANCELLED),
        ),
        entry(loss(20.0, "weak", 2, 9.0), stop("weak", ExitReason.UNDERPERFORMED)),
        entry(left(21.0, "weak", Departure.STOPPED), launch("outranked", "paused")),
        entry(loss(22.0, "diverged", 2, 1.0)),
        entry(loss(24.0, "diverged", 4, 7.0), stop("diverged", ExitReason.DIVERGED)),
        entry(left(25.0, "diverged", Departure.STOPPED)),
        entry(loss(26.0, "broken", 2, math.nan), stop("broken", ExitReason.NON_FINITE)),
        entry(left(27.0, "broken", Departure.STOPPED)),
        entry(loss(28.0, "evicted", 4, 3.0)),
        entry(left(29.0, "evicted", Departure.EVICTED)),
        entry(left(30.0, "failed", Departure.FAILED)),
        entry(loss(31.0, "outranked", 2, 4.0), Pause(JobId("outranked"))),
        entry(left(32.0, "outranked", Departure.PAUSED)),
        entry(loss(33.0, "paused", 2, 3.0), Pause(JobId("paused"))),
        entry(
            left(34.0, "paused", Departure.PAUSED),
            stop("outranked", ExitReason.UNDERPERFORMED),
            launch("running"),
        ),
        entry(loss(35.0, "hasty", 10, 2.0), stop("hasty", ExitReason.OVERFITTED)),
        entry(left(36.0, "hasty", Departure.FINISHED)),
        entry(loss(37.0, "running", 2, 2.0)),
        entry(loss(38.0, "finished", 10, 1.5)),
        entry(left(39.0, "finished", Departure.FINISHED)),
        entry(loss(42.0, "running", 4, math.inf)),
    )
