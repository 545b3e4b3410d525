"""The executors of a simulated cluster, and what becomes of the jobs in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    NodeDown,
    NodeUp,
)
from alto_policy.memory import holding_widths
from alto_policy.types import Gpu, GpuId, JobId, Task, TaskId
from alto_runs.costs.kinds import KindCosts
from alto_sim.cluster.clock import Clock
from alto_sim.cluster.in_step import InStep
from alto_sim.cluster.lane import Known, Lane, Training
from alto_sim.cluster.rigid import RigidLane
from alto_sim.cluster.trainee import Outlet, Place, Trainee
from alto_sim.curves.losses import Losses
from alto_sim.machines.failures import Dice
from alto_sim.machines.hardware import Hardware
from alto_sim.workloads.workload import Workload

__all__ = ["Executors"]

AnyLane = Lane | RigidLane

# Looked up once: a member asked of its enum takes 0.09 us in Python 3.11, a global 0.005.
_AWAY, _COMING, _PAUSED = Place.AWAY, Place.COMING, Departure.PAUSED


@dataclass(slots=True)
class _Executor:
    """One start of a task's executor."""

    task: Task
    gpus: tuple[GpuId, ...]
    slowdown: float
    costs: KindCosts | None  # of its kinds, where GPUs are of several
    trainees: dict[JobId, Trainee]  # that hold memory of it
    lanes: dict[GpuId, AnyLane]  # one of all that go in step
    gpu_of: dict[JobId, GpuId]  # where each job was launched last


class Executors:
    """Carries out decisions, each after its latency, and tells what came of them."""

    def __init__(
        self,
        workload: Workload,
        gpus: tuple[Gpu, ...],
        clock: Clock,
        tell: Callable[[Event], None],
    ) -> None:
        self._workload = workload
        self._latencies = workload.latencies
        self._clock = clock
        self._tell = tell
        self._hardware = Hardware(gpus, workload.speeds)
        self._dice = Dice(workload.faults)
        self._has_job_failures = workload.faults.has_job_failures
        self._outlet = Outlet(self._report, self._left)
        self._executors: dict[TaskId, _Executor] = {}
        self._home: dict[JobId, tuple[_Executor, AnyLane]] = {}  # of those that hold memory
        self._paused_in: dict[JobId, Lane] = {}  # where jobs have paused last

    def start(self, known: Task, gpus: tuple[GpuId, ...]) -> None:
        """The task may have a choice of how many GPUs it takes; the executor has not."""
        task = known.on(len(gpus))
        dice, latencies = self._dice, self._latencies
        hardware, mixture = self._hardware, self._workload.mixture
        costs = None if mixture is None else mixture.of_gang(hardware.kinds(gpus), task)
        slowdown = dice.slowdown() * hardware.slowdown(gpus)
        executor = self._executors[task.id] = _Executor(task, gpus, slowdown, costs, {}, {}, {})
        seconds = dice.late(latencies.start) + dice.late(latencies.load)

        def come_up() -> None:
            if self._executors.get(task.id) is executor:
                memory_of = self._workload.memory_of if costs is None else costs.memory_model
                memory = memory_of(task)
                if known.widths:
                    found = holding_widths(known, lambda width: memory_of(known.on(width)))
                    memory = replace(memory, widths=found) if found else memory
                self._tell(ExecutorUp(self._clock.now, task.id, memory))

        self._clock.after(seconds, come_up)

    def stop(self, task: TaskId) -> None:
        executor = self._executors[task]

        def go_down() -> None:
            if self._executors.get(task) is executor:
                self._lose(executor)

        self._clock.after(self._dice.late(self._latencies.stop), go_down)

    def launch(self, trainee: Trainee, task: TaskId, gpu: GpuId) -> None:
        executor, job = self._executors[task], trainee.spec.id
        executor.gpu_of[job] = gpu
        lane = executor.lanes.get(gpu)
        if lane is None:
            lane = self._new_lane(executor, gpu, trainee)
        trainee.place, trainee.ordered, trainee.has_heard = _COMING, None, False
        trainee.stay += 1
        executor.trainees[job] = trainee
        self._home[job] = executor, lane
        if self._has_job_failures:

            def fail(trainee: Trainee) -> None:
                lane.discard(trainee)
                self._left(trainee, Departure.FAILED)

            self._clock.after(self._dice.until_job_fails(), _if_here(trainee, fail))
        self._during(trainee, self._latencies.launch, lane.join)

    def order(self, trainee: Trainee, how: Departure) -> None:
        """Send the order to leave. Of one that has paused all is on disk, or on its way."""
        if trainee.place is _AWAY:
            if (paused := self._paused_in.pop(trainee.spec.id, None)) is not None:
                paused.hear(trainee)
            return
        trainee.ordered = how
        _, lane = self._home[trainee.spec.id]
        latency = self._latencies.pause if how is _PAUSED else self._latencies.stop
        self._during(trainee, latency, lane.hear)

    def release(self, trainee: Trainee) -> None:
        """The decisions on the job's report are back."""
        _, lane = self._home[trainee.spec.id]
        lane.release(trainee)

    def break_nodes(self, has_work: Callable[[], bool]) -> None:
        """Have each node fail, be repaired and fail again, as long as there is work."""

        def fail(node: str) -> None:
            if not has_work():
                return
            self._tell(NodeDown(self._clock.now, node))
            hit = self._hardware.nodes[node]
            for executor in [e for e in self._executors.values() if not hit.isdisjoint(e.gpus)]:
                self._lose(executor)
            self._clock.after(self._dice.until_node_is_repaired(), partial(repair, node))

        def repair(node: str) -> None:
            if has_work():
                self._tell(NodeUp(self._clock.now, node))
                self._clock.after(self._dice.until_node_fails(), partial(fail, node))

        if self._workload.faults.has_node_failures:
            for node in self._hardware.nodes:
                self._clock.after(self._dice.until_node_fails(), partial(fail, node))

    def _new_lane(self, executor: _Executor, gpu: GpuId, trainee: Trainee) -> AnyLane:
        """For a GPU on which the job is the first, and for all that go in step with it."""
        workload, slowdown, task = self._workload, executor.slowdown, executor.task
        lane: AnyLane
        if (duration := workload.durations.get(trainee.spec.id)) is not None:
            checkpoints = workload.faults.checkpoint_every
            lane = RigidLane(duration, checkpoints, slowdown, self._clock, self._outlet)
            executor.lanes[gpu] = lane
            return lane
        times = workload.step_time if executor.costs is None else executor.costs
        gang, lengths = times.gang(task), workload.lengths.get(task.id)
        known = None
        if lengths is not None:
            known = Known(lengths, workload.memory_of(task), workload.computed)
        training = Training(
            task=task,
            curves=workload.curves,
            step_time=times if gang is None else InStep(gang, executor.gpu_of),
            slowdown=slowdown,
            overheads=workload.overheads,
            known=known,
        )
        lane = Lane(training, self._clock, self._outlet)
        executor.lanes.update(dict.fromkeys((gpu,) if gang is None else executor.gpus, lane))
        return lane

    def _lose(self, executor: _Executor) -> None:
        """The executor is gone, with all that trains in it."""
        for trainee in executor.trainees.values():
            _, lane = self._home.pop(trainee.spec.id)
            if trainee.place is not _AWAY:  # else it is writing its checkpoint
                lane.discard(trainee)
            trainee.stay += 1
        del self._executors[executor.task.id]
        self._tell(ExecutorDown(self._clock.now, executor.task.id))

    def _report(self, evaluation: float, told: Sequence[tuple[Trainee, Losses]]) -> None:
        """Reports of one evaluation arrive together, unless each is late by its own dice."""

        def arrive(trainee: Trainee, stay: int, losses: Losses) -> None:
            if trainee.stay == stay:  # it has not gone in the meantime
                job, step = trainee.spec.id, trainee.step
                self._tell(LossReported(self._clock.now, job, step, losses.train, losses.val))

        latency = self._latencies.report
        arrivals = [partial(arrive, one, one.stay, losses) for one, losses in told]
        if self._dice.scatters:
            for arrival in arrivals:
                self._clock.after(evaluation + self._dice.late(latency), arrival)
        else:
            self._clock.each_after(evaluation + latency, arrivals)

    def _left(self, trainee: Trainee, how: Departure) -> None:
        """The job trains no more; one that pauses first writes its checkpoint."""
        trainee.stay += 1
        if how is _PAUSED:
            self._during(trainee, self._latencies.checkpoint, partial(self._be_gone, how=how))
        else:
            self._be_gone(trainee, how)

    def _be_gone(self, trainee: Trainee, how: Departure) -> None:
        executor, lane = self._home.pop(trainee.spec.id)
        if how is _PAUSED and isinstance(lane, Lane):
            self._paused_in[trainee.spec.id] = lane
        del executor.trainees[trainee.spec.id]
        self._tell(JobLeft(self._clock.now, trainee.spec.id, how))

    def _during(self, trainee: Trainee, latency: float, act: Callable[[Trainee], None]) -> None:
        """Act after the latency, unless the job has come or gone in the meantime."""
        if latency == 0:
            act(trainee)
        else:
            self._clock.after(self._dice.late(latency), _if_here(trainee, act))


def _if_here(trainee: Trainee, act: Callable[[Trainee], None]) -> Callable[[], None]:
    """Act unless the job has come or gone in the meantime."""
    stay = trainee.stay

    def act_if_here() -> None:
        if trainee.stay == stay:
            act(trainee)

    return act_if_here
