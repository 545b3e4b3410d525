"""From a study to a finished run directory, on the device of this machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from alto_exec.backend import ExecBackend, Past, StartedExecutor
from alto_exec.comparing import compare
from alto_exec.executor import Executor
from alto_exec.inbox import GivenTasks
from alto_exec.machine import facts, gpu_of, settle
from alto_exec.preparation import PreparedTask, prepare
from alto_exec.progress import Progress
from alto_policy.cluster import Cluster
from alto_policy.controller import Controller, run
from alto_policy.policies import build
from alto_policy.runlog import Entry, Header, RunLog
from alto_policy.types import Task, TaskId
from alto_policy.view import Policy
from alto_runs.comparison import write_comparisons
from alto_runs.directory import LogWriter, RunDirectory, read_run_log, write_atomically
from alto_runs.errors import UserError
from alto_runs.replaying import follow_log
from alto_runs.result import Result, write_result
from alto_runs.study import Study, first_difference, load_study, resolved_yaml

__all__ = ["tune"]


def tune(
    study: Study | str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> Result:
    """Train the tasks of a study, or of a study file, into the folder `out`.

    With `resume` a run that was cut short goes on; one that had not begun yet begins. Progress
    goes to `console`, or to stderr. Raises UserError.
    """
    study = study if isinstance(study, Study) else load_study(Path(study))
    directory = RunDirectory.reopen(Path(out)) if resume else RunDirectory.create(Path(out))
    study = _settled(study, directory)
    assert study.executor.threads is not None
    torch.set_num_threads(study.executor.threads)
    prepared = prepare(study)
    write_atomically(directory.study_path, resolved_yaml(study))
    _train(study, prepared, directory, console or Console(stderr=True))
    result = write_result(directory)
    if not directory.comparison_path.exists():
        write_comparisons(directory.comparison_path, compare(study, prepared, result))
    return result


def _settled(study: Study, directory: RunDirectory) -> Study:
    """The study with every choice made: that of the run where it has begun."""
    if not directory.study_path.is_file():
        return study.model_copy(update={"executor": settle(study.executor)})
    begun = load_study(directory.study_path)
    if difference := first_difference(study, begun):
        raise UserError(f"{directory.study_path}: the run was begun with {difference}")
    return begun


def _train(
    study: Study, prepared: Sequence[PreparedTask], directory: RunDirectory, console: Console
) -> None:
    by_id: Mapping[TaskId, PreparedTask] = {one.task.id: one for one in prepared}

    def start(task: Task) -> StartedExecutor:
        this = by_id[task.id]
        backbone = this.load(study.executor)
        executor = Executor(backbone, this.dataset, directory)
        return executor, this.memory(backbone, executor.bank, study.executor)

    policy = build(study.policy)
    with LogWriter(directory.log_path) as writer:
        directory.sweep()
        log = read_run_log(directory.log_path)
        header = log.header or Header(
            policy=study.policy,
            gpus=(gpu_of(study.executor),),
            made_by=facts(study.executor, _kernels(study, prepared)),
        )
        if log.header is None:
            writer.write_header(header)
        cluster = Cluster(header.gpus)
        _catch_up(log, policy, cluster, directory)
        past = Past.of(log.entries)
        arrived = {task.id for task in past.tasks}
        coming = GivenTasks(one.task for one in prepared if one.task.id not in arrived)
        backend = ExecBackend(coming, start, lambda _: directory, past)
        with Progress(console, cluster, lambda: backend.tokens_trained) as progress:

            def record(entry: Entry) -> None:
                writer.write_entry(entry)
                progress.show(entry)

            run(Controller(policy, cluster, record), backend)


def _catch_up(log: RunLog, policy: Policy, cluster: Cluster, directory: RunDirectory) -> None:
    """Bring policy and ledger to where the log ends. Raises UserError if they cannot follow it."""
    difference = follow_log(log, Controller(policy, cluster), directory.log_path)
    if difference is not None:
        raise UserError(
            f"{directory.log_path}: entry {difference.index + 1} is decided differently now; go on "
            "with the version of ALTO that began this run"
        )


def _kernels(study: Study, prepared: Sequence[PreparedTask]) -> str:
    """Of all tasks, each way of computing told once."""
    return "; ".join(dict.fromkeys(one.kernels(study.executor) for one in prepared))
