"""What is simulated: tasks as they arrive, their losses, and how the machine behaves."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from alto_policy.events import TaskArrived, TaskCancelled
from alto_policy.memory import MemoryModel
from alto_policy.types import JobId, Task, TaskId
from alto_runs.costs.durations import PassTimes, TaskDurations
from alto_runs.costs.kinds import KindDurations, Mixture
from alto_runs.costs.machine_costs import CHOSEN, ExecutorChoices, Machine
from alto_runs.costs.step_profile import StepProfile
from alto_runs.files.data_lengths import SampleLengths
from alto_sim.curves.losses import LossCurves
from alto_sim.machines.failures import NO_FAULTS, Faults
from alto_sim.machines.latencies import Latencies
from alto_sim.times.overheads import NO_OVERHEADS, Overheads
from alto_sim.times.step_time import DEFAULT_STEP_TIME, Computed

__all__ = [
    "DEFAULT_LATENCIES",
    "DEFAULT_MEMORY",
    "Workload",
    "on_mixture",
    "profiled",
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
