"""Whatever can be simulated, by its path: a study, a trace, or a run that has ended."""

from pathlib import Path

from alto_policy.events import TaskArrived
from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.runlog import Entry, RunLog
from alto_runs.directory import RunDirectory, read_run_log
from alto_runs.errors import UserError
from alto_runs.records import read_records
from alto_runs.study import Study, TaskSpec, expand, load_study
from alto_sim.workload import Workload, recorded, synthetic

__all__ = ["load_workload"]

_STUDY = (".yaml", ".yml")


def load_workload(path: Path) -> tuple[Workload, Settings]:
    """The workload, and the policy that it was run with or asks for. Raises UserError."""
    if path.is_dir():
        log = read_run_log(RunDirectory.open(path).log_path)
        return recorded(log), _policy_of(log)
    if path.suffix.lower() in _STUDY:
        study = load_study(path)
        return synthetic(_trace_of(study)), study.policy
    log = read_run_log(path)
    if not any(isinstance(entry.event, TaskArrived) for entry in log.entries):
        raise UserError(f"{path}: no task arrives in this trace")
    has_losses = any(not isinstance(entry.event, TaskArrived) for entry in log.entries)
    return recorded(log) if has_losses else synthetic(log), _policy_of(log)


def _policy_of(log: RunLog) -> Settings:
    return log.header.policy if log.header else AltoSettings()


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
