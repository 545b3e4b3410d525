"""What is simulated: tasks as they arrive, their losses, and how the machine behaves."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from alto_policy.decisions import StartExecutor
from alto_policy.events import ExecutorUp, TaskArrived, TaskCancelled
from alto_policy.memory import MemoryModel
from alto_policy.runlog import RunLog
from alto_policy.types import JobId, Task, TaskId
from alto_runs.costs.durations import PassTimes, TaskDurations
from alto_runs.costs.kinds import KindDurations, Mixture
from alto_runs.costs.machine_costs import CHOSEN, ExecutorChoices, Machine
from alto_runs.costs.step_profile import StepProfile
from alto_runs.data_lengths import SampleLengths
from alto_runs.executor_work import Work
from alto_runs.history import Outcome, RunHistory, follow
from alto_runs.versions import TRAINING_CODE
from alto_sim.calibrate import Fitted, fit, fit_work, trained_beside
from alto_sim.calibrate_between import Told, seconds_to_leave, seconds_to_start, stops_of_paused
from alto_sim.curves import LossCurves, RecordedCurves
from alto_sim.curves_generated import DEFAULT_SHAPE, GeneratedCurves, Shape
from alto_sim.failures import NO_FAULTS, Faults
from alto_sim.latencies import Latencies
from alto_sim.overheads import NO_OVERHEADS, Overheads
from alto_sim.step_time import DEFAULT_STEP_TIME, Computed

__all__ = [
    "DEFAULT_LATENCIES",
    "DEFAULT_MEMORY",
    "Workload",
    "learnt",
    "on_mixture",
    "profiled",
    "recorded",
    "synthetic",
    "weighed",
]

# An executor in the process of its policy: nothing waits but the loading of an 8B backbone.
DEFAULT_LATENCIES = Latencies(
    start=0.0, load=30.0, launch=0.0, report=0.0, pause=0.0, checkpoint=0.0, stop=0.0
)

# An 8B backbone in bfloat16 on 80 GB, gradient checkpointing, all linear layers adapted.
DEFAULT_MEMORY = MemoryModel(
    capacity=76_000_000_000,
    fixed=17_000_000_000,
    per_rank=42_000_000,
    per_token=1_000_000,
    per_rank_token=0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    arrivals: tuple[TaskArrived, ...]
    curves: LossCurves
    step_time: PassTimes = DEFAULT_STEP_TIME
    mixture: Mixture | None = None  # where GPUs are of several kinds: in place of it and `memory`
    overheads: Overheads = NO_OVERHEADS
    latencies: Latencies = DEFAULT_LATENCIES
    measured: Mapping[TaskId, MemoryModel] = field(default_factory=dict)
    memory: MemoryModel = DEFAULT_MEMORY  # of a task that was never measured
    durations: Mapping[JobId, float] = field(default_factory=dict)  # of rigid jobs, in seconds
    speeds: Mapping[str, float] = field(default_factory=dict)  # of rigid jobs by kind, else 1
    faults: Faults = NO_FAULTS
    cancellations: tuple[TaskCancelled, ...] = ()
    lengths: Mapping[TaskId, SampleLengths] = field(default_factory=dict)  # of data that is known
    computed: dict[int, Computed] | None = None  # to be filled: what one GPU replays, by stretches

    def memory_of(self, task: Task) -> MemoryModel:
        if isinstance(self.step_time, Machine):
            return self.step_time.memory_model(task)
        return self.measured.get(task.id, self.memory)


def synthetic(trace: RunLog, *, seed: int = 0, shape: Shape = DEFAULT_SHAPE) -> Workload:
    """The tasks of a trace that nobody has trained, with generated losses."""
    arrivals = _arrivals(trace)
    curves = GeneratedCurves((arrival.task for arrival in arrivals), seed=seed, shape=shape)
    return Workload(arrivals=arrivals, curves=curves, cancellations=_cancellations(trace))


def profiled(
    workload: Workload, profile: StepProfile, choices: ExecutorChoices = CHOSEN
) -> Workload:
    """The workload on the machine that was profiled: its step times, and its memory.

    What its own executors took beside their passes is left behind. Raises UserError for a backbone
    whose shape is not known.
    """
    machine = Machine(profile, choices)
    for arrival in workload.arrivals:
        machine.memory_model(arrival.task)
    return replace(workload, step_time=machine, overheads=NO_OVERHEADS)


def on_mixture(workload: Workload, mixture: Mixture, counts: Mapping[str, int]) -> Workload:
    """As `profiled`, on so many GPUs of each kind; its tasks know the kinds that hold them, and
    how fast each of them is.

    Raises UserError for a backbone whose shape is not known.
    """
    held = [
        TaskArrived(arrival.t, replace(arrival.task, kinds=mixture.holding(arrival.task, counts)))
        for arrival in workload.arrivals
    ]
    workload = replace(workload, arrivals=tuple(held), mixture=mixture, overheads=NO_OVERHEADS)
    return weighed(
        workload, KindDurations(mixture, lambda costs: TaskDurations(costs, costs.memory_model))
    )


def weighed(workload: Workload, durations: KindDurations) -> Workload:
    """What its tasks tell of their speeds, by these durations."""
    arrivals = tuple(
        TaskArrived(arrival.t, durations.weighed(arrival.task)) for arrival in workload.arrivals
    )
    return replace(workload, arrivals=arrivals)


def recorded(log: RunLog, work: Sequence[Work] = ()) -> Workload:
    """A run once more: its tasks, losses and memory, and its times as fitted from it.

    What its executors told of their `work` is fitted where there is any, else the times between
    reports; those hold the delays of messages, so that only an executor's start is late. A job
    that ended without a report was rigid, and lasts as long again.
    """
    measured: dict[TaskId, MemoryModel] = {}
    asked: dict[TaskId, float] = {}
    starts: list[float] = []
    for entry in log.entries:
        if isinstance(up := entry.event, ExecutorUp):
            measured[up.task] = up.memory
            starts.append(up.t - asked[up.task])
        for decision in entry.decisions:
            if isinstance(decision, StartExecutor):
                asked[decision.task] = entry.event.t
    start = median(starts) if starts else DEFAULT_LATENCIES.start
    fitted = learnt((log, work))
    return Workload(
        arrivals=_arrivals(log),
        curves=RecordedCurves.of_log(log.entries),
        step_time=fitted.step_time,
        overheads=fitted.overheads,
        latencies=replace(DEFAULT_LATENCIES, load=start),
        measured=measured,
        durations=_durations(follow(log)),
        cancellations=_cancellations(log),
    )


def learnt(
    *runs: tuple[RunLog, Sequence[Work]],
    pairs: Collection[TaskId] = (),
    computed: Sequence[Sequence[Computed]] = (),
) -> Fitted:
    """Times fitted to runs of one machine together; several have to tell of their work. Some of
    their tasks may train on `pairs`, and what the passes of each run computed may be known."""
    tasks = [arrival.task for log, _ in runs for arrival in _arrivals(log)]
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
        Told(follow(log), work, trained_beside(work, told, longest, known), stops_of_paused(log))
        for (log, work), known in zip(runs, computed or [()] * len(runs), strict=True)
    ]
    are_old = any(_waits_for_pauses(log) for log, _ in runs)
    report, leaving = seconds_to_leave(*followed, waits_for_pauses=are_old)
    launch, launch_beside = seconds_to_start(*followed)
    between = replace(
        told.overheads,
        launch=launch,
        launch_beside=launch_beside,
        leaving=leaving,
        report=report,
    )
    return replace(told, overheads=between)


def _waits_for_pauses(log: RunLog) -> bool:
    """Until what pauses is on disk, as executors did before they told the code that trains."""
    return log.header is not None and TRAINING_CODE not in dict(log.header.made_by)


def _arrivals(log: RunLog) -> tuple[TaskArrived, ...]:
    """A cluster's kinds of GPU are not those of another."""
    events = (entry.event for entry in log.entries)
    arrivals = (event for event in events if isinstance(event, TaskArrived))
    return tuple(
        each
        if each.task.kinds is None
        else replace(each, task=replace(each.task, kinds=None, speeds=()))
        for each in arrivals
    )


def _durations(history: RunHistory) -> dict[JobId, float]:
    """Seconds on a GPU of the jobs that finished without a report."""
    return {
        name: math.fsum(stay.end - stay.start for stay in job.residencies)
        for name, job in history.jobs.items()
        if job.outcome is Outcome.FINISHED and not job.reports
    }


def _cancellations(log: RunLog) -> tuple[TaskCancelled, ...]:
    return tuple(entry.event for entry in log.entries if isinstance(entry.event, TaskCancelled))
