"""Learns from the logs of runs, and from what their executors told, how long all of it takes."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from alto_policy.events import TaskArrived
from alto_policy.runlog import RunLog
from alto_policy.types import Task, TaskId
from alto_runs.files.executor_work import Work
from alto_runs.outcomes.history import RunHistory, follow
from alto_runs.versions import TRAINING_CODE
from alto_sim.calibration.between import (
    Told,
    seconds_to_leave,
    seconds_to_start,
    seconds_to_tell,
    stops_of_paused,
)
from alto_sim.calibration.fitted import Fitted
from alto_sim.calibration.from_reports import fit
from alto_sim.calibration.from_work import fit_work, trained_beside
from alto_sim.calibration.waits import fit_writing
from alto_sim.times.step_time import Computed

__all__ = ["learnt"]


def learnt(
    *runs: tuple[RunLog, Sequence[Work]],
    pairs: Collection[TaskId] = (),
    computed: Sequence[Sequence[Computed]] = (),
    histories: Sequence[RunHistory] = (),
) -> Fitted:
    """Times fitted to runs of one machine together; several have to tell of their work. Some of
    their tasks may train on `pairs`, and what the passes of each run computed may be known, and to
    what each is followed."""
    tasks = [task for log, _ in runs for task in _tasks(log)]
    longest = {task.id: task.max_length for task in tasks}
    told = fit_work(
        *(work for _, work in runs),
        longest=longest,
        means={task.id: task.mean_length for task in tasks if task.tokens is not None},
        pairs=pairs,
        computed=computed,
    )
    if told is None:
        ((log, _),) = runs
        return fit(log.entries)
    followed = [
        Told(history, work, trained_beside(work, told, longest, known), stops_of_paused(log))
        for (log, work), history, known in zip(
            runs,
            histories or [follow(log) for log, _ in runs],
            computed or [()] * len(runs),
            strict=True,
        )
    ]
    are_old = any(_waits_for_pauses(log) for log, _ in runs)
    telling = seconds_to_tell(*followed)
    leaving = (
        seconds_to_leave(*followed, telling=telling) if are_old else fit_writing(followed, telling)
    )
    launch, launch_beside = seconds_to_start(*followed)
    between = replace(
        told.overheads,
        launch=launch,
        launch_beside=launch_beside,
        leaving=leaving,
        reports=telling.together,
        report=telling.each,
        departure=0.0 if are_old else telling.departure,
    )
    return replace(told, overheads=between)


def _tasks(log: RunLog) -> Iterator[Task]:
    return (entry.event.task for entry in log.entries if isinstance(entry.event, TaskArrived))


def _waits_for_pauses(log: RunLog) -> bool:
    """Until what pauses is on disk, as executors did before they told the code that trains."""
    return log.header is not None and TRAINING_CODE not in dict(log.header.made_by)
