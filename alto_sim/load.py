"""Whatever can be simulated, by its path: a study, a trace, or a run that has ended."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alto_policy.events import TaskArrived, TaskCancelled
from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry, RunLog
from alto_runs.costs.machine_costs import CHOSEN, ExecutorChoices, Machine
from alto_runs.costs.step_profile import Basis, StepProfile
from alto_runs.costs.storage import Storage
from alto_runs.directory import RunDirectory, is_plain_name, read_run_log
from alto_runs.errors import UserError
from alto_runs.executor_work import read_work
from alto_runs.profile import read_profile, shipped_profile
from alto_runs.records import read_records
from alto_runs.summary import GENERATED, LOSSES, STEP_TIMES
from alto_sim.curves_import import read_trainer_states
from alto_sim.generator import TaskMix, retune
from alto_sim.importers import AT_ONCE, is_cluster_trace, read_trace, rigid
from alto_sim.workload import Workload, profiled, recorded, synthetic

if TYPE_CHECKING:
    from alto_runs.study import ExecutorSpec, Study, TaskSpec

__all__ = ["Loaded", "load_workload"]

log = logging.getLogger(__name__)

_STUDY = (".yaml", ".yml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A workload, and the policy that it was run with or asks for."""

    workload: Workload
    settings: Settings
    gpu: str = "any"  # kind of the cluster's GPUs; a trace's jobs take as long on any
    facts: tuple[tuple[str, str], ...] = ()  # for the header of its log
    is_drawn: bool = False  # its losses are generated: another seed gives others


def load_workload(
    path: Path,
    *,
    seed: int = 0,
    profile: StepProfile | None = None,
    mix: TaskMix | None = None,
    curves: Path | None = None,
) -> Loaded:
    """On the machine that the profile was measured on, or is carried over to; without one, a run
    is on its own machine, and a study on that of the shipped profile.

    Raises UserError. The jobs of a cluster's trace are rigid, and messages in it take no time; with
    a `mix` they are tuning tasks drawn from it, which keep their arrivals and widths. Losses that
    would be generated are those of a folder of `curves`, if one is given.
    """
    loaded = _load(path, seed, profile, mix)
    if curves is None:
        return loaded
    if not loaded.is_drawn:
        raise UserError(f"{path}: its jobs have losses of their own, or none")
    jobs = [job for arrival in loaded.workload.arrivals for job in arrival.task.jobs]
    workload = replace(loaded.workload, curves=read_trainer_states(curves, jobs))
    facts = ((LOSSES, f"trainer states in {curves}"), *loaded.facts[1:])
    return replace(loaded, workload=workload, facts=facts, is_drawn=False)


def _load(path: Path, seed: int, profile: StepProfile | None, mix: TaskMix | None) -> Loaded:
    if mix is not None and not is_cluster_trace(path):
        raise UserError(
            f"{path}: its tasks are what they are, expected a trace of a cluster's jobs"
        )
    if is_cluster_trace(path):
        if mix is None and profile is not None:
            raise UserError(f"{path}: its jobs take as long as they took, whatever the machine")
        trace = read_trace(path)
        for reason, count in trace.dropped.items():
            log.warning("%s: left out %d jobs: %s", path, count, reason)
        if mix is not None:
            tasks = retune(rigid(trace, AT_ONCE).arrivals, mix, seed=seed)
            log_of_tasks = RunLog(None, tuple(Entry(arrival, ()) for arrival in tasks))
            return _drawn(log_of_tasks, AltoSettings(), seed, profile)
        return Loaded(workload=rigid(trace, AT_ONCE), settings=FifoSettings())
    if path.is_dir():
        directory = RunDirectory.open(path)
        run, work = read_run_log(directory.log_path), read_work(directory.work_path)
        return _on_machine(run, recorded(run, work), profile)
    if path.suffix.lower() in _STUDY:
        from alto_runs.study import load_study  # with pydantic half of the time to start

        study = load_study(path)
        return _drawn(_trace_of(study), study.policy, seed, profile, _choices(study.executor))
    run = read_run_log(path)
    _check_arrivals(run, path)
    if any(not isinstance(entry.event, TaskArrived | TaskCancelled) for entry in run.entries):
        return _on_machine(run, recorded(run), profile)
    return _drawn(run, _policy_of(run), seed, profile)


def _on_machine(run: RunLog, workload: Workload, profile: StepProfile | None) -> Loaded:
    settings = _policy_of(run)
    if profile is None:
        kinds = dict.fromkeys(gpu.kind for gpu in run.header.gpus) if run.header else ("any",)
        return Loaded(workload=workload, settings=settings, gpu=", ".join(kinds))
    workload = profiled(workload, profile)
    return Loaded(
        workload=workload, settings=settings, gpu=profile.gpu, facts=_facts(workload, profile)
    )


def _drawn(
    trace: RunLog,
    settings: Settings,
    seed: int,
    given: StepProfile | None,
    choices: ExecutorChoices = CHOSEN,
) -> Loaded:
    """On the machine of the shipped profile, if none is given and all backbones' shapes are
    known."""
    workload = synthetic(trace, seed=seed)
    profile = given or StepProfile(read_profile(shipped_profile()))
    try:
        workload = profiled(workload, profile, choices)
        facts = _facts(workload, profile)
    except UserError as error:
        if given is not None:
            raise
        log.warning("step times and memory are those of an 8B backbone: %s", error)
        facts = (("profile", "none: an 8B backbone on one H100"),)
        workload = replace(workload, memory=choices.bounded(workload.memory))
    facts = ((LOSSES, GENERATED), ("seed", str(seed)), *facts)
    return Loaded(workload=workload, settings=settings, gpu=profile.gpu, facts=facts, is_drawn=True)


def _choices(executor: "ExecutorSpec") -> ExecutorChoices:
    return ExecutorChoices(
        storage=Storage(
            frozen_weights=executor.frozen_weights, optimizer_states=executor.optimizer_states
        ),
        recompute=executor.recompute,
        max_jobs=executor.max_jobs,
        memory_gb=executor.memory_gb,
    )


def _facts(workload: Workload, profile: StepProfile) -> tuple[tuple[str, str], ...]:
    return (
        ("profile", f"{profile.gpu}, {profile.kernels}"),
        (STEP_TIMES, _basis(workload).value),
    )


def _basis(workload: Workload) -> Basis:
    """How far the weakest of the answers stands from a measurement, for jobs alone."""
    machine = workload.step_time
    assert isinstance(machine, Machine)
    tasks = [arrival.task for arrival in workload.arrivals]
    if any(machine.is_split(task) for task in tasks):
        return Basis.ESTIMATED
    works = {
        (profile, profile.work((job,), task))
        for task in tasks
        for profile in (machine.profile_of(task),)
        for job in task.jobs
    }
    found = {profile.seconds(work).basis for profile, work in works}
    return max(found, key=list(Basis).index)


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


def _trace_of(study: "Study") -> RunLog:
    """All tasks of the study at time zero, their sequences taken for as long as they may be."""
    from alto_runs.study import expand

    tasks = (
        expand(name, spec, num_samples=_num_train_records(spec), max_length=spec.data.max_length)
        for name, spec in study.tasks.items()
    )
    return RunLog(None, tuple(Entry(TaskArrived(0.0, task), ()) for task in tasks))


def _num_train_records(spec: "TaskSpec") -> int:
    count = len(read_records(spec.data.train))
    if spec.data.validation is None:
        count -= round(count * spec.data.validation_fraction)
    return min(count, spec.data.train_limit or count)
