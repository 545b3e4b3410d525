"""How long a study will take, from a few passes that were timed."""

import math
from collections.abc import Sequence
from dataclasses import replace

from alto_policy.events import TaskArrived
from alto_policy.policies import Settings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry
from alto_policy.types import Gpu, GpuId
from alto_runs.measurement import Forecast, MeasuredTask
from alto_sim.curves.generated import GeneratedCurves
from alto_sim.simulate import play
from alto_sim.times.step_time import StepTime
from alto_sim.workloads.workload import DEFAULT_LATENCIES, Workload

__all__ = ["forecast"]


def forecast(measured: Sequence[MeasuredTask], settings: Settings) -> Forecast:
    """The tasks one after another on one device, under the policy and without any exit."""
    return Forecast(
        measured=tuple(measured),
        longest_seconds=math.fsum(_makespan(one, FifoSettings()) for one in measured),
        typical_seconds=math.fsum(_makespan(one, settings) for one in measured),
    )


def _makespan(measured: MeasuredTask, settings: Settings) -> float:
    workload = Workload(
        arrivals=(TaskArrived(0.0, measured.task.on(1)),),
        curves=GeneratedCurves([measured.task]),
        step_time=StepTime(
            per_pass=measured.pass_seconds,
            per_token=measured.token_seconds,
            per_evaluation=measured.evaluation_seconds,
        ),
        latencies=replace(DEFAULT_LATENCIES, load=measured.load_seconds),
        measured={measured.task.id: measured.memory},
    )
    entries: list[Entry] = []
    play(workload, settings, (Gpu(id=GpuId(0), kind="this"),), entries.append)
    return entries[-1].event.t
