"""How long adapters take to be written is learnt from who waited for them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from alto_policy.decisions import Decision, ExitReason, Launch, Pause, Stop
from alto_policy.events import Departure
from alto_policy.policies import build
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry, Header, RunLog
from alto_policy.types import GpuId, Hyperparameters, Job, JobId
from alto_runs.files.executor_work import EvaluationWork, TrainingWork, Work
from alto_runs.outcomes.history import follow
from alto_sim.calibration.between import (
    Telling,
    Told,
    seconds_to_tell,
    stops_of_paused,
)
from alto_sim.calibration.waits import fit_writing
from alto_sim.cluster.backend import SimBackend
from alto_sim.curves.losses import LossCurves, Losses
from alto_sim.times.overheads import NO_OVERHEADS
from alto_sim.times.step_time import StepTime
from alto_sim.times.writing import Writing
from tests.sim.cases import NOW, Flat, Scripted, gpus, play, sim, task

TASK = task("t", [Job(id=JobId("any"), hyperparameters=Hyperparameters(), steps=1, reports=1)])
RANKS, STEPS = (16, 64, 32, 16, 64, 32), (3, 4, 5, 5, 6, 7)


class Falling(Flat):
    def losses(self, job: Job, step: int) -> Losses:
        return Losses(1.0, -float(step))


class Waving(Flat):
    """Better at each odd step than ever before, and worse at each even one."""

    def losses(self, job: Job, step: int) -> Losses:
        return Losses(1.0, 10.0 - step if step % 2 else 20.0)


def told_by(times: Writing, more: Sequence[float] = ()) -> Told:
    """A run of passes of a second each, in which adapters are written so; in some of its first
    intervals time went elsewhere."""
    jobs = jobs_of(RANKS, STEPS)
    entries = play(build(FifoSettings()), world(jobs, Waving(), times))
    return told(entries, max(STEPS), more)


def test_who_pauses_is_written_and_written_again_if_it_is_better_when_it_goes() -> None:
    """Nothing else is waited for: 4 s, for 64 ranks that replace as many."""
    jobs = jobs_of((64, 16), (4, 6))
    script: dict[str, list[Decision]] = {
        "job-0@1": [Pause(jobs[0].id)],
        "job-1@2": [Launch(TASK.id, GpuId(0), (jobs[0].id,))],
        "job-0@2": [Stop(jobs[0].id, ExitReason.OVERFITTED)],
    }
    times = Writing(alone=1 / 64, together=0.0, again=4)
    entries = play(Scripted(script, [one.id for one in jobs]), world(jobs, Falling(), times))
    found = fit_writing([told(entries, 6)], Telling())
    assert found.alone * found.again * 64 == pytest.approx(4.0, rel=0.5)


def test_who_pauses_is_waited_for_as_it_is_given_up_and_telling_takes_no_part_in_it() -> None:
    jobs = jobs_of((64, 16), (4, 6))
    script: dict[str, list[Decision]] = {
        "job-0@1": [Pause(jobs[0].id)],
        "job-0 paused": [Stop(jobs[0].id, ExitReason.UNDERPERFORMED)],
    }
    times = Writing(alone=2e-5 * 3**5, together=0.0, again=1)
    entries = play(
        Scripted(script, [one.id for one in jobs]),
        world(jobs, Falling(), times, report=0.05, departure=0.5),
    )
    run = told(entries, 6)
    assert [name for _, name in run.stops] == [jobs[0].id]
    found = fit_writing([run], Telling(each=0.05, departure=0.5))
    assert max(found.alone, found.together) == pytest.approx(times.alone)


def jobs_of(ranks: Sequence[int], all_steps: Sequence[int]) -> list[Job]:
    return [
        Job(
            id=JobId(f"job-{number}"),
            hyperparameters=Hyperparameters(rank=rank),
            steps=steps,
            reports=steps,
        )
        for number, (rank, steps) in enumerate(zip(ranks, all_steps, strict=True))
    ]


def world(jobs: Sequence[Job], curves: LossCurves, times: Writing, **others: float) -> SimBackend:
    second = StepTime(per_pass=1.0, per_token=0.0, per_evaluation=0.0)
    overheads = replace(NO_OVERHEADS, leaving=times, **others)
    return sim(jobs, curves=curves, step_time=second, latencies=NOW, overheads=overheads)


def told(entries: Sequence[Entry], rounds: int, more: Sequence[float] = ()) -> Told:
    rows: list[Work] = []
    for number in range(rounds):
        seconds = 1.0 - (more[number] if number < len(more) else 0.0)
        rows += [
            TrainingWork(task=TASK.id, jobs=1, ranks=8, passes=1, tokens=1, seconds=seconds),
            EvaluationWork(task=TASK.id, jobs=1, first_reports=0, tokens=1, seconds=0.0),
        ]
    log = RunLog(Header(policy=FifoSettings(), gpus=gpus()), tuple(entries))
    return Told(follow(log), rows, [None] * len(rows), stops_of_paused(log))


def test_what_is_told_of_reports_and_departures_is_found_again_from_a_simulated_run() -> None:
    """Of jobs that pause and of one that is given up then; who leaves for good costs nothing."""
    jobs = jobs_of((16, 16, 16), (8, 8, 4))
    script: dict[str, list[Decision]] = {
        "job-0@2": [Pause(jobs[0].id)],
        "job-1@3": [Launch(TASK.id, GpuId(0), (jobs[0].id,))],
        "job-2@2": [Pause(jobs[2].id)],
        "job-2 paused": [Stop(jobs[2].id, ExitReason.UNDERPERFORMED)],
    }
    times = Telling(together=0.02, each=0.005, departure=0.1)
    backend = world(
        jobs,
        Falling(),
        Writing(alone=0.0, together=0.0, again=1),
        reports=times.together,
        report=times.each,
        departure=times.departure,
    )
    entries = play(Scripted(script, [one.id for one in jobs]), backend)
    found = seconds_to_tell(told(entries, 9))
    assert found.together == pytest.approx(times.together)
    assert found.each == pytest.approx(times.each)
    assert found.departure == pytest.approx(times.departure)
    end = entries[-1].event.t
    told_of = 8 * times.together + (8 + 8 + 2 - 1) * times.each  # until the last one
    assert end == pytest.approx(9 * 1.0 + told_of + 3 * times.departure)


@pytest.mark.parametrize("again", [1, 4])
def test_it_is_found_again_from_a_simulated_run(again: int) -> None:
    times = Writing(alone=2e-5 * 81, together=2e-5 * 27, again=again)
    found = fit_writing([told_by(times)], Telling())
    assert found.alone == pytest.approx(times.alone)
    assert found.together == pytest.approx(times.together)
    assert found.again == again


def test_a_report_that_is_as_good_as_the_best_one_is_past_it() -> None:
    jobs = jobs_of((16,), (3,))
    entries = play(build(FifoSettings()), world(jobs, Flat(), Writing(0.0, 0.0, 1)))
    first, second, last = told(entries, 3).intervals
    assert [since for one in (first, second, last) for _, since in one.reports] == [0, 1, 2]
    assert last.left == [(jobs[0], Departure.FINISHED, 2)]


def test_one_moment_in_which_time_went_elsewhere_does_not_count() -> None:
    times = Writing(alone=2e-5 * 81, together=2e-5 * 27, again=4)
    assert fit_writing([told_by(times, (0.0, 0.0, 0.0, 0.5))], Telling()).again == 4
    assert fit_writing([told_by(times, (0.0, 0.0, 0.0, 0.5))], Telling()).alone == times.alone
