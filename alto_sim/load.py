"""Whatever can be simulated, by its path: a study, a trace, or a run that has ended."""

import logging
from pathlib import Path

from alto_policy.events import TaskArrived
from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry, RunLog
from alto_runs.directory import RunDirectory, is_plain_name, read_run_log
from alto_runs.errors import UserError
from alto_runs.records import read_records
from alto_runs.study import Study, TaskSpec, expand, load_study
from alto_sim.importers import AT_ONCE, is_cluster_trace, read_trace, rigid
from alto_sim.workload import Workload, recorded, synthetic

__all__ = ["load_workload"]

log = logging.getLogger(__name__)

_STUDY = (".yaml", ".yml")


def load_workload(path: Path) -> tuple[Workload, Settings]:
    """The workload, and the policy that it was run with or asks for. Raises UserError.

    The jobs of a cluster's trace are rigid, and messages in it take no time.
    """
    if is_cluster_trace(path):
        trace = read_trace(path)
        for reason, count in trace.dropped.items():
            log.warning("%s: left out %d jobs: %s", path, count, reason)
        return rigid(trace, AT_ONCE), FifoSettings()
    if path.is_dir():
        run = read_run_log(RunDirectory.open(path).log_path)
        return recorded(run), _policy_of(run)
    if path.suffix.lower() in _STUDY:
        study = load_study(path)
        return synthetic(_trace_of(study)), study.policy
    run = read_run_log(path)
    _check_arrivals(run, path)
    has_losses = any(not isinstance(entry.event, TaskArrived) for entry in run.entries)
    return recorded(run) if has_losses else synthetic(run), _policy_of(run)


def _check_arrivals(run: RunLog, path: Path) -> None:
    """Tasks and jobs arrive once, under names that can be those of files. Raises UserError."""
    arrived: set[str] = set()
    for number, entry in enumerate(run.entries, start=1):
        if isinstance(entry.event, TaskArrived):
            task = entry.event.task
            if task.id in arrived:
                raise UserError(f"{path}: entry {number}: task {task.id!r} has arrived before")
            for name in (task.id, *(job.id for job in task.jobs)):
                if not is_plain_name(name):
                    raise UserError(f"{path}: entry {number}: {name!r} is no name of a file")
            if twice := sorted(arrived.intersection(f"job {job.id}" for job in task.jobs)):
                raise UserError(f"{path}: entry {number}: {twice[0]} belongs to another task")
            arrived.update((task.id, *(f"job {job.id}" for job in task.jobs)))
    if not arrived:
        raise UserError(f"{path}: no task arrives in this trace")


def _policy_of(run: RunLog) -> Settings:
    return run.header.policy if run.header else AltoSettings()


def _trace_of(study: Study) -> RunLog:
    """All tasks of the study at time zero, their sequences taken for as long as they may be."""
    tasks = (
        expand(name, spec, num_samples=_num_train_records(spec), max_length=spec.data.max_length)
        for name, spec in study.tasks.items()
    )
    return RunLog(None, tuple(Entry(TaskArrived(0.0, task), ()) for task in tasks))


def _num_train_records(spec: TaskSpec) -> int:
    count = len(read_records(spec.data.train))
    if spec.data.validation is None:
        count -= round(count * spec.data.validation_fraction)
    return min(count, spec.data.train_limit or count)
