"""Adapters on their way to the disk, and who waits for them, in whole seconds."""

import pytest

from alto_policy.events import Departure
from alto_policy.types import Hyperparameters, Job, JobId
from alto_sim.times.writing import Writers, Writing

STOPPED, PAUSED = Departure.STOPPED, Departure.PAUSED


def job(name: str, rank: int = 8) -> Job:
    return Job(id=JobId(name), hyperparameters=Hyperparameters(rank=rank), steps=9, reports=9)


def better(writers: Writers, now: float, *jobs: Job) -> None:
    for one in jobs:
        writers.report(now, one, 0)


def test_one_that_goes_is_waited_for_unless_its_adapter_is_on_the_disk() -> None:
    writers, a, b = Writers(Writing(alone=1 / 8, together=0, again=1)), job("a"), job("b", 16)
    better(writers, 0.0, a, b)
    writers.report(10.0, a, 1)
    assert writers.leave(10.5, a, STOPPED, 1)
    assert writers.settle() == pytest.approx((0.5, 0.0)), "half of it was written"
    assert not writers.leave(12.0, a, STOPPED, 1)
    assert writers.leave(12.0, b, STOPPED, 0)
    assert writers.settle() == pytest.approx((2.0, 0.0))


def test_many_share_what_the_disk_can_do_and_a_file_that_is_replaced_takes_longer() -> None:
    writers, jobs = Writers(Writing(alone=1 / 8, together=1 / 8, again=4)), [*map(job, "abc")]
    better(writers, 0.0, *jobs)
    for one in jobs:
        writers.leave(0.0, one, STOPPED, 0)
    assert writers.settle()[0] == pytest.approx(3.0)
    better(writers, 9.0, jobs[0])
    writers.leave(9.0, jobs[0], STOPPED, 0)
    assert writers.settle()[0] == pytest.approx(4.0)


def test_what_pauses_is_written_after_what_goes_and_waited_for_once_it_is_given_up() -> None:
    writers, (a, b, c) = Writers(Writing(alone=0, together=1 / 8, again=1)), [*map(job, "abc")]
    better(writers, 0.0, a, b, c)
    assert not writers.leave(1.0, a, PAUSED, 0)
    assert writers.leave(1.0, b, STOPPED, 0)
    assert not writers.leave(1.0, c, PAUSED, 0)
    assert writers.settle()[0] == pytest.approx(1.0)
    writers.give_up(2.5, a.id)
    assert writers.settle()[0] == pytest.approx(1.5), "beside the other one that paused"


def test_past_its_best_a_job_waits_where_sixteen_are_written() -> None:
    writers = Writers(Writing(alone=1 / 8, together=0, again=1))
    jobs = [job(f"job-{number}") for number in range(17)]
    better(writers, 0.0, *jobs)
    for one in jobs:
        writers.report(1.0, one, 1)
    writers.report(1.5, jobs[16], 2)
    writers.report(2.0, jobs[16], 3)
    writers.leave(2.25, jobs[16], STOPPED, 3)
    assert writers.settle()[0] == pytest.approx(0.75)


def test_seconds_and_factors_are_not_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        Writing(alone=-1.0, together=0.0, again=1.0)
