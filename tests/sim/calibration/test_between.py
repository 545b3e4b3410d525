"""What takes time while nobody trains is learnt from what executors did not tell of."""

from dataclasses import replace

import pytest

from alto_policy.decisions import Decision, ExitReason, Launch, Pause, Stop, StopExecutor
from alto_policy.events import ExecutorDown
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Header, RunLog
from alto_policy.types import GpuId, Job, JobId
from alto_runs.files.executor_work import EvaluationWork, LaunchWork, TrainingWork, Work
from alto_runs.outcomes.history import ExecutorSpan, follow
from alto_sim.calibration.between import (
    Beside,
    Telling,
    Told,
    seconds_to_leave,
    seconds_to_start,
    seconds_to_tell,
    stops_of_paused,
)
from alto_sim.curves.losses import Losses
from alto_sim.times.overheads import NO_OVERHEADS, Leaving
from alto_sim.times.step_time import StepTime
from tests.sim.cases import NOW, Flat, Scripted, gpus, job, play, sim, task

TASK = task("t", [job("any", 1, 1)])


class Falling(Flat):
    def losses(self, job: Job, step: int) -> Losses:
        return Losses(1.0, -float(step))


def test_what_nobody_told_of_went_into_reports_and_departures() -> None:
    """Of two jobs of rank 16, a stops after its first report and b trains on: passes of 10 s, after
    which it takes half a second to tell of each report, and 4 s to keep each of them."""
    jobs = [job("a", 3, 3), job("b", 3, 3)]
    ten = StepTime(per_pass=10.0, per_token=0.0, per_evaluation=0.0)
    between = replace(NO_OVERHEADS, report=0.5, leaving=Leaving(alone=4.0 / 16))
    latencies = replace(NOW, load=1.0)
    world = sim(jobs, curves=Falling(), step_time=ten, latencies=latencies, overheads=between)
    script: dict[str, list[Decision]] = {
        "a@1": [Stop(jobs[0].id, ExitReason.OVERFITTED)],
        "b finished": [StopExecutor(TASK.id)],
    }
    entries = tuple(play(Scripted(script, [one.id for one in jobs]), world))
    down = [e for e in entries if isinstance(e.event, ExecutorDown)][-1]
    later = replace(down, event=replace(down.event, t=down.event.t + 4.5))
    history = follow(RunLog(Header(policy=FifoSettings(), gpus=gpus()), (*entries[:-1], later)))
    rows: list[Work] = []
    for reports in (2, 1, 1):
        rows += [
            TrainingWork(task=TASK.id, jobs=reports, ranks=8, passes=1, tokens=1, seconds=10.0),
            EvaluationWork(task=TASK.id, jobs=reports, first_reports=0, tokens=1, seconds=0.0),
        ]
    told = Told(history, rows, [None] * len(rows))
    torn = replace(told, work=rows[:-1], beside=told.beside[:-1])
    telling = seconds_to_tell(told)
    assert telling.seconds(1) == pytest.approx(0.5)
    half = Telling(each=0.5)
    assert seconds_to_leave(told, telling=half) == Leaving(alone=0.25)
    assert (seconds_to_tell(torn), seconds_to_leave(torn, telling=half)) == (Telling(), Leaving())
    assert seconds_to_tell(torn, told) == telling
    assert seconds_to_leave(torn, told, telling=half) == Leaving(alone=0.25)


def test_passes_beside_a_disk_took_longer_for_it() -> None:
    """Three jobs of rank 16 pause at once, and are not waited for: a recording took 6 s more.
    Replays of 10 ms lost half as much time, as they do where the host takes 20 ms each."""
    jobs = [job(name, 2, 2) for name in "abcd"]
    script: dict[str, list[Decision]] = {f"{name}@1": [Pause(JobId(name))] for name in "abc"}
    entries = play(Scripted(script, tuple("abcd")), sim(jobs, latencies=replace(NOW, load=1.0)))
    history = follow(RunLog(Header(policy=FifoSettings(), gpus=gpus()), tuple(entries)))
    down = ExecutorSpan(TASK.id, (GpuId(0),), 1.0, 3.5)
    history = replace(history, executors=(down,))
    rows: list[Work] = []
    for reports in (4, 1):
        rows += [
            TrainingWork(task=TASK.id, jobs=reports, ranks=8, passes=1, tokens=1, seconds=1.0),
            EvaluationWork(task=TASK.id, jobs=reports, first_reports=0, tokens=1, seconds=0.0),
        ]
    recorded = Told(history, rows, [None, None, Beside(6.0, None), None])
    found = seconds_to_leave(recorded, telling=Telling())
    assert (found.together, found.pass_beside) == (6.0 / 48, 0.0)
    assert seconds_to_leave(Told(history, rows, [None] * 4), telling=Telling()).together == 0
    replayed = replace(recorded, beside=[None, None, Beside(3.0, 0.010), None])
    found = seconds_to_leave(recorded, replayed, telling=Telling())
    assert (found.together, found.pass_beside) == (6.0 / 48, 0.020)


def test_what_jobs_left_that_were_stopped_in_their_pause_was_waited_for() -> None:
    """a and b pause, and a is stopped as c has paused too; b is stopped once it is back."""
    jobs = [job(name, 2, 2) for name in "abc"]
    script: dict[str, list[Decision]] = {
        "a@1": [Pause(jobs[0].id)],
        "b@1": [Pause(jobs[1].id)],
        "c@1": [Pause(jobs[2].id)],
        "c paused": [
            Stop(jobs[0].id, ExitReason.UNDERPERFORMED),
            Launch(TASK.id, GpuId(0), (jobs[1].id,)),
        ],
        "b@2": [Stop(jobs[1].id, ExitReason.OVERFITTED)],
    }
    entries = play(Scripted(script, tuple("abc")), sim(jobs, latencies=replace(NOW, load=1.0)))
    assert stops_of_paused(RunLog(None, tuple(entries))) == [(2.0, jobs[0].id)]


def test_places_are_those_of_new_jobs() -> None:
    """Two jobs, one of which came back: three launches, two of them into new places."""
    jobs = [job("a", 2, 2), job("b", 2, 1)]
    first, both = (jobs[0].id,), (jobs[0].id, jobs[1].id)
    script: dict[str, list[Decision]] = {
        "a@1": [Pause(first[0])],
        "a paused": [Launch(TASK.id, GpuId(0), both)],
    }
    header = Header(policy=FifoSettings(), gpus=gpus())
    history = follow(RunLog(header, tuple(play(Scripted(script, first), sim(jobs)))))
    told = [
        LaunchWork(task=TASK.id, jobs=1, seconds=1.5),
        LaunchWork(task=TASK.id, jobs=2, seconds=0.5),
    ]
    run, untold = Told(history, told, [None] * 2), Told(history, (), ())
    assert seconds_to_start(run) == (1.5, 0.5)
    assert seconds_to_start(run, untold) == (1.5, 0.5)
    alone = replace(run, work=[replace(told[0], jobs=2)], beside=[None])
    assert seconds_to_start(alone) == (0.75, 0.75)
