"""Full grids: every job of a task trained to its end, so that any rule can be judged on it.

Recorded grids are the run logs of exits-off runs under `traces/recorded`. As long as there are
none, and where many tasks are needed, curves are generated; they are labelled so.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alto_policy.events import ExecutorDown, LossReported, TaskArrived
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.sequential import SequentialSettings
from alto_policy.runlog import RunLog
from alto_policy.types import Job, JobId, Task, TaskId
from alto_runs.files.directory import RunDirectory, read_run_log, runs_below
from alto_runs.study import load_study
from alto_runs.study_fields.search import PAPER_GRID, configurations, numbered_jobs
from alto_sim.curves.generated import DEFAULT_SHAPE, GeneratedCurves, Shape
from alto_sim.curves.losses import Losses
from experiments.grids.columns import column_of
from experiments.grids.same_task import by_task, is_repeated, name_of, seed_of

__all__ = [
    "RECORDED",
    "CurveSet",
    "TableCurves",
    "best_of_seed",
    "by_seed",
    "curve_set",
    "generated_sets",
    "longer_grids",
    "origins",
    "other_grids",
    "paper_task",
    "recorded_logs",
    "recorded_sets",
    "shown_sets",
    "whole_searches",
]

RECORDED = Path(__file__).parents[2] / "traces" / "recorded"
_SAMPLES = 12_000  # three epochs of 4,000
_REPORTS = 40

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CurveSet:
    """Losses of all jobs of a task at equal shares of their own samples.

    `val` and `train` are [jobs, reports]; not a number from where a job broke down.
    """

    name: str
    origin: str  # the log, or how they were generated
    is_generated: bool
    task: Task
    train: Array
    val: Array

    @property
    def num_reports(self) -> int:
        return int(self.val.shape[1])

    @property
    def best(self) -> Array:
        """Least validation loss of each job; infinite where there is none."""
        least: Array = np.min(np.where(np.isfinite(self.val), self.val, np.inf), axis=1)
        return least

    @property
    def final(self) -> Array:
        """Last validation loss of each job; infinite where it broke down."""
        return np.where(np.isfinite(self.val[:, -1]), self.val[:, -1], np.inf)


class TableCurves:
    """The losses of a set, for the simulator: `LossCurves`. A job reports as the set has it."""

    def __init__(self, curves: CurveSet) -> None:
        self._curves = curves
        self._rows = {job.id: row for row, job in enumerate(curves.task.jobs)}

    def losses(self, job: Job, step: int) -> Losses:
        number = max(1, step * job.reports // job.steps)
        column = column_of(job, number, self._curves.num_reports)
        row = self._rows[job.id]
        return Losses(float(self._curves.train[row, column]), float(self._curves.val[row, column]))

    def report_step(self, job: Job, step: int) -> int:
        return job.next_report_step(step)


def curve_set(
    name: str,
    origin: str,
    task: Task,
    reports: Mapping[JobId, Iterable[LossReported]],
    *,
    is_generated: bool,
) -> CurveSet:
    """Column n holds the first report at or after the share (n + 1) / columns of a job."""
    num_columns = max(job.reports for job in task.jobs)
    train = np.full((len(task.jobs), num_columns), np.nan)
    val = np.full_like(train, np.nan)
    for row, job in enumerate(task.jobs):
        shares = (np.arange(num_columns) + 1) / num_columns
        known = sorted(reports.get(job.id, ()), key=lambda report: report.step)
        steps = np.array([report.step for report in known]) / job.steps
        for column, at in enumerate(np.searchsorted(steps, shares - 1e-9)):
            if at < len(known):
                train[row, column] = known[at].train_loss
                val[row, column] = known[at].val_loss
    return CurveSet(name, origin, is_generated, task, train, val)


@cache
def recorded_logs(folder: Path = RECORDED) -> tuple[tuple[str, RunLog], ...]:
    """All run logs of the folder, by their path from two folders above it."""
    paths = [RunDirectory(run).log_path for run in runs_below(folder)]
    return tuple((str(path.relative_to(folder.parents[1])), read_run_log(path)) for path in paths)


@cache
def whole_searches(folder: Path = RECORDED) -> tuple[tuple[str, RunLog], ...]:
    """Those logs that were not cut off, and are not of preferences."""
    return tuple(
        (path, log)
        for path, log in recorded_logs(folder)
        if not _is_of_preferences(folder.parents[1] / path)
        and any(isinstance(entry.event, ExecutorDown) for entry in log.entries)
    )


@cache
def recorded_sets(folder: Path = RECORDED) -> tuple[CurveSet, ...]:
    """A set for each task and seed of the logs without exits, of the jobs that came to their end: a
    run may have been cut off. Without preferences, whose losses end near zero: a share of the best
    one means nothing there."""
    sets = []
    for path, log in recorded_logs(folder):
        if log.header is None or not isinstance(
            log.header.policy, FifoSettings | SequentialSettings
        ):
            continue
        if _is_of_preferences(folder.parents[1] / path):
            continue
        reports: dict[JobId, list[LossReported]] = {}
        for entry in log.entries:
            if isinstance(entry.event, LossReported):
                reports.setdefault(entry.event.job, []).append(entry.event)
        arrived = [e.event.task for e in log.entries if isinstance(e.event, TaskArrived)]
        for task in arrived:
            jobs = tuple(job for job in task.jobs if _is_whole(job, reports.get(job.id, ())))
            if not jobs:
                continue
            origin = path if len(jobs) == len(task.jobs) else f"{path}, {len(jobs)} whole jobs"
            ended = replace(task, jobs=jobs)
            sets.append(curve_set(name_of(task), origin, ended, reports, is_generated=False))
    return _most_of_each(sets)


@cache
def other_grids(folder: Path = RECORDED) -> tuple[CurveSet, ...]:
    """Full grids of other batch sizes, amounts of data and backbones, named `TASK, WHAT DIFFERS`:
    settings that were chosen on another grid of the task are not judged on them."""
    return (
        *(_named(c, f"batch {_sizes(c)}") for c in recorded_sets(folder.with_name("batches"))),
        *(_named(c, f"{_least(c):,} samples") for c in recorded_sets(folder.with_name("sizes"))),
        *(_named(c, "") for c in recorded_sets(folder.with_name("slices"))),
    )


@cache
def longer_grids(folder: Path = RECORDED) -> tuple[CurveSet, ...]:
    """Full grids of a recorded task over more epochs, named `TASK, SAMPLES of a job`."""
    found = []
    for curves in recorded_sets(folder.with_name("longer")):
        name, longer, _ = curves.origin.split("/")[-2].partition("-longer-")
        if longer:
            found.append(replace(curves, name=f"{name}, {_least(curves):,} samples"))
    return tuple(found)


def _named(curves: CurveSet, what: str) -> CurveSet:
    """A slice tells its layers in its own name."""
    found = re.fullmatch(r"(.*?)(?:-\d+)?-(\d+)-layers", curves.name)
    name, what = (found[1], f"{found[2]} layers") if found else (curves.name, what)
    return replace(curves, name=f"{name}, {what}")


def _sizes(curves: CurveSet) -> str:
    sizes = [job.hyperparameters.samples_per_step for job in curves.task.jobs]
    return f"{min(sizes)} to {max(sizes)}"


def _least(curves: CurveSet) -> int:
    """Samples that a job trains, at least: steps are rounded up."""
    return min(job.samples(job.steps) for job in curves.task.jobs)


def _most_of_each(sets: Sequence[CurveSet]) -> tuple[CurveSet, ...]:
    """Of a search that was recorded again, seed and all, the log with the most whole jobs."""
    kept: list[CurveSet] = []
    for one in sorted(sets, key=lambda curves: -len(curves.task.jobs)):
        if not any(is_repeated(one.task, other.task) for other in kept):
            kept.append(one)
    return tuple(curves for curves in sets if curves in kept)


def by_seed(sets: Iterable[CurveSet]) -> list[tuple[CurveSet, ...]]:
    """The seeds of each task together; a generated set is a task of its own."""
    return by_task(sets, lambda curves: curves.task)


def best_of_seed(group: Sequence[CurveSet], seed: int) -> float:
    """Of the grids of a task the least loss of that seed's, or of all where it has none."""
    own = [curves for curves in group if seed_of(curves.task) == seed] or group
    return min(float(curves.best.min()) for curves in own)


def _is_of_preferences(log: Path) -> bool:
    study = log.with_name("study.yaml")
    return study.exists() and any(
        task.objective == "dpo" for task in load_study(study).tasks.values()
    )


def _is_whole(job: Job, reports: Sequence[LossReported]) -> bool:
    """Whether the job was trained to its end, or was lost before."""
    if not reports:
        return False
    last = reports[-1]
    return last.step == job.steps or not np.isfinite([last.train_loss, last.val_loss]).all()


def generated_sets(
    count: int, *, first_seed: int = 0, shape: Shape = DEFAULT_SHAPE
) -> tuple[CurveSet, ...]:
    """The paper's grid of 60 jobs on as many tasks of the generator (`alto_sim.curves.generated`).

    The seeds are `first_seed` and the next ones.
    """
    return tuple(_generated(seed, shape) for seed in range(first_seed, first_seed + count))


@cache
def _generated(seed: int, shape: Shape) -> CurveSet:
    task = paper_task(f"generated-{seed}")
    curves = GeneratedCurves([task], seed=seed, shape=shape)
    reports = {job.id: list(_reports(job, curves)) for job in task.jobs}
    return curve_set(task.id, f"generated, seed {seed}", task, reports, is_generated=True)


def shown_sets(count: int, folder: Path = RECORDED) -> tuple[CurveSet, ...]:
    """What is recorded, or generated sets as long as nothing is."""
    return recorded_sets(folder) or generated_sets(count)


def origins(sets: Iterable[CurveSet]) -> tuple[str, ...]:
    """For a caption: logs by their paths, once each; generated ones in one phrase."""
    sets = tuple(sets)
    drawn = [curves.origin.rsplit(" ", 1)[-1] for curves in sets if curves.is_generated]
    logs = dict.fromkeys(f"`{curves.origin}`" for curves in sets if not curves.is_generated)
    return (*logs, *([f"generated curves, seeds {', '.join(drawn)}"] if drawn else []))


def paper_task(name: str, backbone: str = "SmolLM2-135M", max_length: int = 256) -> Task:
    """The paper's search for one GPU."""
    tried = configurations(PAPER_GRID)
    jobs = numbered_jobs(name, tried, samples=_SAMPLES, reports=_REPORTS)
    return Task(id=TaskId(name), jobs=jobs, backbone=backbone, max_length=max_length)


def _reports(job: Job, curves: GeneratedCurves) -> Iterable[LossReported]:
    for number in range(1, job.reports + 1):
        step = job.report_step(number)
        losses = curves.losses(job, step)
        yield LossReported(0.0, job.id, step, losses.train, losses.val)
        if losses.is_lost:
            return
