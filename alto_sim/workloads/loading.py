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
from alto_runs.costs.machine_costs import CHOSEN, ExecutorChoices
from alto_runs.costs.step_profile import StepProfile
from alto_runs.costs.storage import Storage
from alto_runs.errors import UserError
from alto_runs.files.data_lengths import read_lengths
from alto_runs.files.directory import RunDirectory, is_plain_name, read_run_log
from alto_runs.files.executor_work import read_work
from alto_runs.profile import read_profile, shipped_profile
from alto_runs.summary import GENERATED, LENGTHS, LOSSES
from alto_sim.curves.generated import GeneratedCurves, Shape
from alto_sim.curves.imported import read_curves
from alto_sim.importers import is_cluster_trace, read_trace
from alto_sim.machines.nodes import Nodes
from alto_sim.workloads.from_logs import recorded, synthetic
from alto_sim.workloads.generator import TaskMix, retune
from alto_sim.workloads.placed import Facts, Placed, at_speeds, placed
from alto_sim.workloads.rigid import AT_ONCE, rigid
from alto_sim.workloads.text_lengths import BY_CHARACTERS, estimated_size
from alto_sim.workloads.workload import Workload

if TYPE_CHECKING:
    from alto_runs.study import ExecutorSpec, Study

__all__ = ["Loaded", "load_workload"]

log = logging.getLogger(__name__)

_STUDY = (".yaml", ".yml")
_MANY_SEARCHES = 10_000
_SEARCH_GB = 0.25e-3  # of memory, that a search of sixty jobs takes
_ESTIMATED_LENGTHS = ((LENGTHS, BY_CHARACTERS),)
_Machine = StepProfile | Nodes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A workload, and the policy that it was run with or asks for."""

    workload: Workload
    settings: Settings
    gpu: str = "any"  # kind of the cluster's GPUs; a trace's jobs take as long on any
    facts: Facts = ()
    is_drawn: bool = False  # its losses are generated: another seed gives others


def load_workload(
    path: Path,
    *,
    seed: int = 0,
    machine: _Machine = None,
    mix: TaskMix | None = None,
    curves: Path | None = None,
    shape: Shape | None = None,
) -> Loaded:
    """On the machine that a profile was measured on, or is carried over to, or on those of its
    nodes; without one, a run is on its own machine, and a study on that of the shipped profile.

    Raises UserError. The jobs of a cluster's trace are rigid, and messages in it take no time; with
    a `mix` they are tuning tasks drawn from it, which keep their arrivals and widths. Losses that
    would be generated are those of the `curves` of a table or folder, if one is given, or have
    this `shape`.
    """
    loaded = _load(path, seed, machine, mix)
    if curves is None and shape is None:
        return loaded
    if not loaded.is_drawn:
        raise UserError(
            f"{'losses' if curves is None else '--losses'}: {path} has losses of its own, or none; "
            "expected a study or generated tasks"
        )
    if curves is None:
        assert shape is not None
        tasks = [arrival.task for arrival in loaded.workload.arrivals]
        drawn = GeneratedCurves(tasks, seed=seed, shape=shape)
        workload = replace(loaded.workload, curves=drawn)
        return replace(loaded, workload=workload, facts=(*loaded.facts, ("courses", shape.told)))
    jobs = [job for arrival in loaded.workload.arrivals for job in arrival.task.jobs]
    workload = replace(loaded.workload, curves=read_curves(curves, jobs))
    facts = ((LOSSES, f"those in {curves}"), *loaded.facts[1:])
    return replace(loaded, workload=workload, facts=facts, is_drawn=False)


def _load(path: Path, seed: int, machine: _Machine, mix: TaskMix | None) -> Loaded:
    if is_cluster_trace(path):
        if mix is None and isinstance(machine, StepProfile):
            raise UserError(
                f"{path}: its jobs take as long as they took, whatever the machine; "
                "expected no --profile and no --gpu"
            )
        trace = read_trace(path)
        for reason, count in trace.dropped.items():
            log.warning("%s: jobs left out: %d, %s", path, count, reason)
        if mix is not None:
            if (count := len(trace.jobs)) > _MANY_SEARCHES:
                log.warning(
                    "%s: %s searches take about %.1f GB of memory; a trace of its first lines "
                    "alone takes less",
                    path,
                    f"{count:,}",
                    count * _SEARCH_GB,
                )
            tasks = retune(rigid(trace, AT_ONCE).arrivals, mix, seed=seed)
            log_of_tasks = RunLog(None, tuple(Entry(arrival, ()) for arrival in tasks))
            return _drawn(log_of_tasks, AltoSettings(), seed, machine)
        workload = rigid(trace, AT_ONCE)
        if isinstance(machine, Nodes):
            return _loaded(at_speeds(workload, machine), FifoSettings())
        return Loaded(workload=workload, settings=FifoSettings())
    if path.is_dir():
        directory = RunDirectory.open(path)
        run, work = read_run_log(directory.log_path), read_work(directory.work_path)
        lengths = read_lengths(directory.lengths_path)
        return _again(run, replace(recorded(run, work), lengths=lengths), machine)
    if path.suffix.lower() in _STUDY:
        return _of_study(path, seed, machine)
    run = read_run_log(path)
    _check_arrivals(run, path)
    if any(not isinstance(entry.event, TaskArrived | TaskCancelled) for entry in run.entries):
        return _again(run, recorded(run), machine)
    return _drawn(run, _policy_of(run), seed, machine)


def _of_study(path: Path, seed: int, machine: _Machine) -> Loaded:
    from alto_runs.study import load_study, naming  # with pydantic half of the time to start

    study = load_study(path)
    choices = _choices(study.executor)
    with naming(path):
        return _drawn(_trace_of(study), study.policy, seed, machine, choices, _ESTIMATED_LENGTHS)


def _again(run: RunLog, workload: Workload, machine: _Machine) -> Loaded:
    settings = _policy_of(run)
    if machine is None:
        kinds = dict.fromkeys(gpu.kind for gpu in run.header.gpus) if run.header else ("any",)
        return Loaded(workload=workload, settings=settings, gpu=", ".join(kinds))
    if workload.durations and isinstance(machine, Nodes):
        return _loaded(at_speeds(workload, machine), settings)
    return _loaded(placed(workload, machine), settings)


def _drawn(
    trace: RunLog,
    settings: Settings,
    seed: int,
    given: _Machine,
    choices: ExecutorChoices = CHOSEN,
    facts: Facts = (),
) -> Loaded:
    """On the machine of the shipped profile, if none is given and all backbones' shapes are
    known."""
    workload = synthetic(trace, seed=seed)
    drawn = ((LOSSES, GENERATED), ("seed", str(seed)), *facts)
    if given is not None:
        return _loaded(placed(workload, given, choices), settings, drawn)
    profile = StepProfile(read_profile(shipped_profile()))
    try:
        return _loaded(placed(workload, profile, choices), settings, drawn)
    except UserError as error:
        log.warning("step times and memory are those of an 8B backbone: %s", error)
        workload = replace(workload, memory=choices.bounded(workload.memory))
        unknown = (("profile", "none: an 8B backbone on one H100"),)
        return _loaded(Placed(workload=workload, gpu=profile.gpu, facts=unknown), settings, drawn)


def _loaded(placed: Placed, settings: Settings, drawn: Facts = ()) -> Loaded:
    """With what is told of losses that are generated, if they are."""
    return Loaded(
        workload=placed.workload,
        settings=settings,
        gpu=placed.gpu,
        facts=(*drawn, *placed.facts),
        is_drawn=bool(drawn),
    )


def _choices(executor: "ExecutorSpec") -> ExecutorChoices:
    return ExecutorChoices(
        storage=Storage(
            frozen_weights=executor.frozen_weights, optimizer_states=executor.optimizer_states
        ),
        recompute=executor.recompute,
        max_jobs=executor.max_jobs,
        memory_gb=executor.memory_gb,
    )


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
    """All tasks of the study at time zero."""
    from alto_runs.study import expand, naming_task

    tasks = []
    for name, spec in study.tasks.items():
        with naming_task(name, study):
            size = estimated_size(spec.data)
        task = expand(name, spec, num_samples=size.samples, max_length=size.longest)
        gpus, widths = study.executor.gpus or 1, study.executor.widths
        tasks.append(replace(task, tokens=size.tokens, num_gpus=gpus, widths=widths))
    return RunLog(None, tuple(Entry(TaskArrived(0.0, task), ()) for task in tasks))
