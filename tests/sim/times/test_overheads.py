"""What an executor spends beside steady passes, by hand; and tokens that are known."""

from dataclasses import replace
from typing import Any

import pytest

from alto_policy.decisions import Decision, ExitReason, Launch, Pause, Stop
from alto_policy.events import TaskArrived
from alto_policy.types import GpuId, Job, JobId, TaskId, TokenCounts
from alto_sim.cluster.backend import SimBackend
from alto_sim.curves.losses import Losses
from alto_sim.times.overheads import NO_OVERHEADS, Leaving, Overheads, size_class
from alto_sim.times.step_time import RowTimes, StepTime, forward_passes
from alto_sim.times.writing import Writing
from alto_sim.workloads.workload import Workload
from tests.sim.cases import MEMORY, NOW, SECOND, Flat, gpus, job, news, sim, task

ROWS = RowTimes(per_row=0.125, per_row_beyond=0.0, filling=512)


def test_jobs_get_their_places_before_anybody_trains() -> None:
    overheads = replace(NO_OVERHEADS, launch=2.0)
    assert news(sim([job("a", 2, 2), job("b", 3, 1)], overheads=overheads)) == [
        (5.0, "a@1"),
        (6.0, "a@2"),
        (6.0, "a finished"),
        (7.0, "b@3"),
        (7.0, "b finished"),
    ]


def test_a_job_that_comes_back_has_its_place() -> None:
    """A new one that comes with it has none."""
    overheads = replace(NO_OVERHEADS, launch=3.0, launch_beside=2.0)
    first, both = (JobId("a"),), (JobId("a"), JobId("b"))
    script: dict[str, list[Decision]] = {
        "a@1": [Pause(first[0])],
        "a paused": [Launch(TaskId("t"), GpuId(0), both)],
    }
    jobs = [job("a", 2, 2), job("b", 2, 1)]
    assert news(sim(jobs, overheads=overheads), script, launched=first) == [
        (4.0, "a@1"),
        (4.0, "a paused"),
        (7.0, "a@2"),
        (7.0, "a finished"),
        (8.0, "b@2"),
        (8.0, "b finished"),
    ]


def test_passes_of_a_new_size_take_longer() -> None:
    """Of 1,100 tokens together 12 seconds, and 10 more the first time; of 500 for b alone 6, and
    as long as those of 1,100 until 10 are paid."""
    jobs = [job("a", 2, 2, batch_size=60), job("b", 5, 5, batch_size=50)]
    workload = Workload(
        arrivals=(
            TaskArrived(
                0.0,
                replace(task("t", jobs), tokens=TokenCounts(per_sample=10.0, validation=1)),
            ),
        ),
        curves=Flat(),
        step_time=replace(SECOND, per_token=0.01),
        latencies=NOW,
        overheads=replace(NO_OVERHEADS, first_pass=10.0),
        memory=replace(MEMORY, capacity=200),
    )
    told = news(SimBackend(workload, gpus()))
    reports = [t for t, what in told if what.startswith("b@")]
    assert reports == pytest.approx([22.0, 34.0, 46.0, 56.0, 62.0])


def test_the_first_report_of_a_job_takes_longer() -> None:
    times, overheads = replace(SECOND, per_round=1.0), replace(NO_OVERHEADS, first_report=5.0)
    jobs = [job("a", 3, 3), job("b", 3, 1)]
    told = news(sim(jobs, step_time=times, overheads=overheads))
    assert [(t, what) for t, what in told if "@" in what] == [
        (7.0, "a@1"),
        (9.0, "a@2"),
        (16.0, "b@3"),
        (16.0, "a@3"),
    ]


class Falling(Flat):
    """Each report of a job is its best."""

    def losses(self, job: Job, step: int) -> Losses:
        return Losses(1.0, -float(step))


class Rising(Flat):
    """The first report of a job is its best."""

    def losses(self, job: Job, step: int) -> Losses:
        return Losses(1.0, float(step))


def test_others_wait_while_what_a_job_has_come_to_is_kept() -> None:
    """Of each rank, of which both have 16: 2 seconds for the one that finishes, of which the other
    one waits."""
    overheads = replace(NO_OVERHEADS, leaving=Leaving(alone=2.0 / 16, together=9.0))
    jobs = [job("a", 2, 2), job("b", 4, 4)]
    assert news(sim(jobs, curves=Falling(), overheads=overheads)) == [
        (1.0, "a@1"),
        (1.0, "b@1"),
        (2.0, "a@2"),
        (2.0, "a finished"),
        (2.0, "b@2"),
        (5.0, "b@3"),
        (6.0, "b@4"),
        (6.0, "b finished"),
    ]


def test_a_job_that_stops_is_kept_by_itself_and_telling_takes_time() -> None:
    overheads = replace(NO_OVERHEADS, leaving=Leaving(alone=3.0 / 16, together=9.0), report=0.25)
    script: dict[str, list[Decision]] = {"a@1": [Stop(JobId("a"), ExitReason.OVERFITTED)]}
    jobs = [job("a", 2, 2), job("b", 3, 3)]
    assert news(sim(jobs, curves=Falling(), overheads=overheads), script) == [
        (1.0, "a@1"),
        (1.0, "a stopped"),
        (1.0, "b@1"),
        (1.0 + 0.5 + 3.0 + 1.0, "b@2"),
        (5.5 + 0.25 + 1.0, "b@3"),
        (6.75, "b finished"),
    ]


@pytest.mark.parametrize(("step", "seconds"), [(1, 3.0), (2, 3.0), (3, 0.0)])
def test_who_is_past_its_best_was_kept_as_it_reported_for_the_first_time_since(
    step: int, seconds: float
) -> None:
    overheads = replace(NO_OVERHEADS, leaving=Leaving(alone=3.0 / 16))
    script: dict[str, list[Decision]] = {f"a@{step}": [Stop(JobId("a"), ExitReason.OVERFITTED)]}
    jobs = [job("a", 5, 5), job("b", 4, 4)]
    told = news(sim(jobs, curves=Rising(), overheads=overheads), script)
    assert (4.0 + seconds, "b@4") in told


STOP_A = Stop(JobId("a"), ExitReason.UNDERPERFORMED)


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [
        ({"c@1": [Pause(JobId("c"))]}, 0.0),
        ({"c@1": [Stop(JobId("c"), ExitReason.OVERFITTED)]}, 3.0),
        ({"c@1": [Pause(JobId("c"))], "c paused": [STOP_A]}, 3.0),
        ({"c@1": [Pause(JobId("c"))], "d@2": [STOP_A]}, 0.0),
    ],
    ids=["all come back", "one is stopped", "one that paused is", "one that paused before is"],
)
def test_many_adapters_are_written_side_by_side_and_waited_for_if_one_must_be_there(
    answers: dict[str, list[Decision]], seconds: float
) -> None:
    overheads = replace(NO_OVERHEADS, leaving=Leaving(alone=9.0, together=1.0 / 16))
    jobs = [job(name, 4, 4) for name in "abcd"]
    paused: dict[str, list[Decision]] = {f"{name}@1": [Pause(JobId(name))] for name in "ab"}
    told = news(sim(jobs, overheads=overheads), paused | answers, tuple("abcd"))
    assert (3.0 + seconds, "d@3") in told


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [
        ({"c@1": [Pause(JobId("c"))]}, 0.0),
        ({"c@1": [Stop(JobId("c"), ExitReason.OVERFITTED)]}, 1.0),
        ({"c@1": [Pause(JobId("c"))], "c paused": [STOP_A]}, 1.5),
        ({"c@1": [Pause(JobId("c"))], "d@2": [STOP_A]}, 2 / 3),
    ],
    ids=["all come back", "one is stopped", "one that paused is", "one that paused before is"],
)
def test_what_pauses_is_written_beside_what_trains_until_it_is_given_up(
    answers: dict[str, list[Decision]], seconds: float
) -> None:
    """Of one that is stopped others wait for its own adapter alone: what pauses at that moment is
    written after it, side by side. A third of 1.5 s is left as a is stopped later, and d shares the
    disk."""
    leaving = Writing(alone=1.0 / 16, together=0.5 / 16, again=9.0)
    overheads = replace(NO_OVERHEADS, leaving=leaving)
    jobs = [job(name, 4, 4) for name in "abcd"]
    paused: dict[str, list[Decision]] = {f"{name}@1": [Pause(JobId(name))] for name in "ab"}
    told = news(sim(jobs, overheads=overheads), paused | answers, tuple("abcd"))
    assert next(t for t, what in told if what == "d@3") == pytest.approx(3.0 + seconds)


@pytest.mark.parametrize(
    ("times", "leaving", "more"),
    [
        (replace(SECOND, rows=ROWS), Leaving(together=1.0 / 16), 3.0),
        (replace(SECOND, rows=ROWS), Writing(alone=1.0 / 16, together=1.0 / 16, again=1), 0.0),
        (SECOND, Leaving(together=1.0 / 16), 0.0),
        (SECOND, Leaving(together=1.0 / 16, pass_beside=1.0), 0.0),
        (SECOND, Leaving(together=1.0 / 16, pass_beside=4.0), 2.25),
    ],
)
def test_passes_take_longer_while_adapters_are_written(
    times: StepTime, leaving: Leaving | Writing, more: float
) -> None:
    """What is recorded by all of that time, others by as much as the host is behind the device."""
    script: dict[str, list[Decision]] = {f"{name}@1": [Pause(JobId(name))] for name in "abc"}
    script["c paused"] = [Launch(TaskId("t"), GpuId(0), (JobId("e"),))]
    jobs = [*(job(name, 4, 4) for name in "abcd"), job("e", 1, 1, batch_size=2000)]

    def end(leaving: Leaving | Writing) -> float:
        workload = Workload(
            arrivals=(TaskArrived(0.0, task("t", jobs)),),
            curves=Flat(),
            step_time=times,
            latencies=NOW,
            overheads=replace(NO_OVERHEADS, leaving=leaving),
            memory=replace(MEMORY, capacity=10**9),
        )
        told = news(SimBackend(workload, gpus()), script, tuple("abcd"))
        return next(t for t, what in told if what == "e@1")

    assert end(leaving) - end(Leaving()) == pytest.approx(more)


def test_who_goes_on_feels_at_once_that_others_have_left() -> None:
    """Not once their own report is due."""
    overheads = replace(NO_OVERHEADS, leaving=Leaving(alone=3.0 / 16))
    script: dict[str, list[Decision]] = {"a@1": [Stop(JobId("a"), ExitReason.OVERFITTED)]}
    jobs = [job("a", 2, 2), job("b", 4, 1)]
    told = news(sim(jobs, curves=Falling(), overheads=overheads), script)
    assert [(t, what) for t, what in told if what.startswith("b@")] == [(7.0, "b@4")]


def test_the_first_evaluation_takes_longer_and_so_does_one_of_more_jobs() -> None:
    times = replace(SECOND, per_round=1.0)
    overheads = replace(NO_OVERHEADS, first_evaluation=10.0, first_round=3.0)
    jobs = [job("a", 4, 4), job("b", 4, 2)]
    told = news(sim(jobs, step_time=times, overheads=overheads))
    assert [(t, what) for t, what in told if "@" in what] == [
        (12.0, "a@1"),
        (17.0, "b@2"),
        (17.0, "a@2"),
        (19.0, "a@3"),
        (21.0, "b@4"),
        (21.0, "a@4"),
    ]


def test_known_tokens_count_and_the_longest_sequence_does_not() -> None:
    times = StepTime(
        per_pass=1.0, per_token=0.5, per_evaluation=0.0, per_evaluated_token=0.1, per_round=2.0
    )
    jobs = [job("a", 1, 1, batch_size=2), job("b", 1, 1, batch_size=4)]
    plain = replace(task("t", jobs), max_length=100)
    known = replace(plain, tokens=TokenCounts(per_sample=10.0, validation=50))
    assert times.pass_seconds(jobs, plain) == pytest.approx(1 + 0.5 * 600)
    assert times.pass_seconds(jobs, known) == pytest.approx(1 + 0.5 * 60)
    assert times.evaluation_seconds(jobs, known) == pytest.approx(2 + 0.1 * 2 * 50)
    assert times.evaluation_seconds([], known) == 0
    assert replace(times, rows=ROWS, per_length=0.25).pass_seconds(jobs, known) == pytest.approx(
        1 + 0.5 * 60 + 0.125 * 60 + 0.25 * 100
    )


def test_evaluations_are_packed_and_each_pass_takes_as_long_as_its_host() -> None:
    """A validation set of 20,000 tokens is a pass of 16,384 and a rest, of which a pass holds four:
    seven jobs make seven whole ones, a pass of four rests and one of three."""
    assert forward_passes(7, 20_000) == ((7, 16_384), (1, 4 * 3616), (1, 3 * 3616))
    assert forward_passes(2, 8192) == ((1, 16_384),)
    assert forward_passes(3, 0) == ()
    jobs = [job(name, 1, 1) for name in "abc"]
    known = replace(task("t", jobs), tokens=TokenCounts(per_sample=10.0, validation=8000))
    times = replace(SECOND, per_evaluated_token=0.001, per_forward_pass=9.0, per_round=2.0)
    assert times.evaluation_seconds(jobs, known) == pytest.approx(2 + 16 + 9)


def test_small_passes_are_of_one_class() -> None:
    assert [size_class(tokens) for tokens in (0, 1, 512, 513, 1024, 1025)] == [9, 9, 9, 10, 10, 11]


@pytest.mark.parametrize("name", [*Overheads.__slots__, *Leaving.__slots__])
def test_no_time_is_negative(name: str) -> None:
    if name == "leaving":
        return
    changed: dict[str, Any] = {name: -1.0}
    with pytest.raises(ValueError, match="must not be negative"):
        replace(NO_OVERHEADS if name in Overheads.__slots__ else NO_OVERHEADS.leaving, **changed)
