"""Where simulated runs and recorded ones part: seconds of each part, real and simulated.

    python -m experiments.fidelity.parts [RUN ...]

Each run is simulated with the times of all others of its code, as `makespans.py` does. A
simulated part is what the run is shorter by without it; a real one is what its executor told, or
of recordings and first evaluations what these took more than replays and evaluations of that run
do. What is untold are reports and departures.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alto_policy.types import TaskId
from alto_runs.files.executor_work import EvaluationWork, LaunchWork, TrainingWork
from alto_runs.outcomes.history import follow
from alto_sim.calibration.evaluations import firsts_of, fit_rounds
from alto_sim.calibration.replayed_passes import fit_replays, recordings_of, seconds_of
from alto_sim.times.overheads import Leaving
from alto_sim.times.step_time import StepTime
from alto_sim.workloads.workload import Workload
from experiments.fidelity.makespans import played, predicted
from experiments.fidelity.real_runs import Recording, judged_and_known, read_recording
from experiments.fidelity.sources import Others, Source, others_of

__all__ = ["Parts", "predicted_parts", "real_parts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Seconds, but for the number of recordings."""

    count: float
    recordings: float
    replays: float
    evaluations: float
    first_evaluations: float
    launches: float
    untold: float

    @property
    def total(self) -> float:
        training = self.recordings + self.replays
        return training + self.evaluations + self.first_evaluations + self.launches + self.untold


def real_parts(run: Recording) -> Parts:
    longest = {task.id: task.max_length for task in follow(run.log).tasks}
    training = [row for row in run.work if isinstance(row, TrainingWork)]
    rounds = [row for row in run.work if isinstance(row, EvaluationWork)]
    recordings = _real_recordings(training, longest)
    times = fit_rounds([rounds])
    firsts = math.fsum(
        row.seconds - times.seconds(row, {})
        for row, first in zip(rounds, firsts_of(rounds), strict=True)
        if any(first)
    )
    told = math.fsum(row.seconds for row in run.work)
    return Parts(
        count=math.fsum(recordings_of(training)),
        recordings=recordings,
        replays=math.fsum(row.seconds for row in training) - recordings,
        evaluations=math.fsum(row.seconds for row in rounds) - firsts,
        first_evaluations=firsts,
        launches=math.fsum(row.seconds for row in run.work if isinstance(row, LaunchWork)),
        untold=follow(run.log).end - _start(run) - told,
    )


def _real_recordings(rows: Sequence[TrainingWork], longest: Mapping[TaskId, int]) -> float:
    times = fit_replays([rows], longest).times
    return math.fsum(
        row.seconds - seconds_of(row, longest, times)
        for row, count in zip(rows, recordings_of(rows), strict=True)
        if count
    )


def predicted_parts(run: Recording, others: Others) -> Parts:
    workload = predicted(run, others)
    times, overheads = workload.step_time, workload.overheads
    assert isinstance(times, StepTime)
    whole = played(run, workload).end

    def without(**changed: float | Leaving) -> Workload:
        return replace(workload, overheads=replace(overheads, **changed))  # type: ignore[arg-type]

    def more(workload: Workload) -> float:
        return whole - played(run, workload).end

    no_firsts = without(first_evaluation=0.0, first_round=0.0, first_report=0.0)
    steady = replace(
        times,
        per_evaluated_token=0.0,
        per_evaluated_sequence=0.0,
        per_forward_pass=0.0,
        per_round=0.0,
    )
    firsts = more(no_firsts)
    recordings = more(without(recording=0.0))
    compiled = more(without(recording=0.0, compiling=0.0))
    evaluations = more(replace(no_firsts, step_time=steady)) - firsts
    launches = more(without(launch=0.0, launch_beside=0.0))
    untold = more(without(reports=0.0, report=0.0, departure=0.0, leaving=Leaving()))
    rest = compiled + evaluations + firsts + launches + untold
    return Parts(
        count=recordings / overheads.recording if overheads.recording else 0.0,
        recordings=compiled,
        replays=whole - workload.latencies.load - rest,
        evaluations=evaluations,
        first_evaluations=firsts,
        launches=launches,
        untold=untold,
    )


def _start(run: Recording) -> float:
    (executor,) = follow(run.log).executors
    return executor.start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", help="default: those of traces")
    options = parser.parse_args()
    runs, known = judged_and_known()
    if options.runs:
        runs = known = [read_recording(folder) for folder in options.runs]
    names = [name.replace("_", " ") for name in Parts.__slots__]
    print(f"| run | {' | '.join(names)} | total | makespan |")
    print("|---" * (len(names) + 3) + "|")
    for run in (run for run in runs if run.is_whole and run.tells_rows):
        others = others_of(run, known)
        if others.source is Source.PROFILE:
            continue
        real, made = real_parts(run), predicted_parts(run, others)
        cells = [f"{getattr(real, n):.2f}, {getattr(made, n):.2f}" for n in Parts.__slots__]
        error = (made.total - real.total) / follow(run.log).end
        totals = f"{real.total:.2f}, {made.total:.2f} | {error:+.1%}"
        print(f"| {run.name} | {' | '.join(cells)} | {totals} |", flush=True)


if __name__ == "__main__":
    main()
