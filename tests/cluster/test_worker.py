"""An executor's process, without a process: messages may come twice, and nobody may listen."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from alto_exec.executor import Executor, Report
from alto_exec.jobs.residence import Losses
from alto_exec.ray_cluster.node.messages import (
    Broken,
    Call,
    Join,
    Leave,
    Left,
    News,
    Order,
    Orders,
    Ready,
    Release,
    Reported,
    Secure,
    Secured,
)
from alto_exec.ray_cluster.node.worker import Worker
from alto_policy.events import Departure
from alto_policy.types import Hyperparameters, Job, JobId
from alto_runs.errors import UserError
from tests.policy.cases import memory

JOB = Job(id=JobId("job"), hyperparameters=Hyperparameters(), steps=4, reports=2)
TWIN = Job(id=JobId("twin"), hyperparameters=Hyperparameters(), steps=4, reports=2)
OTHER = Job(id=JobId("other"), hyperparameters=Hyperparameters(), steps=1000, reports=1)
SECONDS = 30  # more than anything here takes


class Steps:
    """Counts steps in place of training; reports come as they are due."""

    def __init__(self) -> None:
        self.training: list[JobId] = []
        self.waiting: dict[JobId, int] = {}
        self.steps: dict[JobId, int] = {}
        self.kept: list[tuple[JobId, bool]] = []
        self.expected: list[list[JobId]] = []
        self.places: dict[JobId, int] = {}
        self.secured: list[JobId] = []
        self.tokens_trained = 0

    def secure(self, jobs: Sequence[Job]) -> None:
        self.secured += [job.id for job in jobs]

    @property
    def residents(self) -> list[JobId]:
        return [*self.training, *self.waiting]

    def expect(self, jobs: Sequence[Job]) -> None:
        self.expected.append([job.id for job in jobs])

    def launch(self, job: Job, place: int = 0) -> Report | None:
        self.places[job.id] = place
        step = self.steps.setdefault(job.id, 0)
        if step == 0:
            self.training.append(job.id)
            return None
        self.waiting[job.id] = step
        return Report(job.id, step, Losses(1.0, 2.0))

    def resume(self, job: JobId, step: int) -> Departure | None:
        if self.waiting.get(job) != step:
            return None
        if step == JOB.steps:
            return Departure.FINISHED
        del self.waiting[job]
        self.training.append(job)
        return None

    def leave(self, job: JobId, *, keep: bool) -> None:
        self.kept.append((job, keep))
        self.waiting.pop(job, None)
        if job in self.training:
            self.training.remove(job)

    def advance(self) -> list[Report]:
        threading.Event().wait(0.001)
        reports = []
        for job in tuple(self.training):
            self.steps[job] += 1
            self.tokens_trained += 1
            if job in (JOB.id, TWIN.id) and self.steps[job] % 2 == 0:
                self.training.remove(job)
                self.waiting[job] = self.steps[job]
                reports.append(Report(job, self.steps[job], Losses(1.0, 2.0)))
        return reports


class Listener:
    """Hears every piece of news once, as the head does."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._num_heard = 0

    def next(self) -> News:
        """The next piece of news, however long it takes."""
        (news, *_) = self._listen(SECONDS)
        self._num_heard += 1
        return news

    def hears_nothing(self) -> bool:
        """For a while."""
        return not self._listen(0.3)

    def _listen(self, seconds: float) -> Sequence[News]:
        pulse = self._worker.listen(Call(self._num_heard, seconds))
        assert pulse.first == self._num_heard
        return pulse.news

    def answer(self, *orders: Order) -> None:
        """All that was heard, with these."""
        self._worker.order(Orders(orders, self._num_heard))


def await_that(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def steps() -> Steps:
    return Steps()


def worker_of(steps: Steps, hold: float = 60.0, answer: float = 3.0) -> Worker:
    def start() -> tuple[Executor, Any]:
        return cast(Executor, steps), memory(10)

    return Worker(start, hold, answer)


@pytest.fixture
def worker(steps: Steps) -> Iterator[Worker]:
    worker = worker_of(steps)
    yield worker
    worker.order(Orders((Leave(OTHER.id, 1, Departure.STOPPED),), 0))


def test_who_has_reported_waits_while_its_adapter_is_secured(worker: Worker, steps: Steps) -> None:
    """That is no answer to its report; one that has left is not asked for."""
    hear = Listener(worker)
    hear.next()
    hear.answer(Join(JOB, 1))
    assert hear.next() == Reported(JOB.id, 1, 2, Losses(1.0, 2.0))
    worker.order(Orders((Secure((JOB, TWIN)),), 1))
    assert hear.next() == Secured((JOB.id, TWIN.id))
    assert steps.secured == [JOB.id]
    assert hear.hears_nothing()
    assert steps.steps[JOB.id] == 2


def test_a_job_waits_at_its_report_and_trains_on_when_released(worker: Worker) -> None:
    hear = Listener(worker)
    assert isinstance(hear.next(), Ready)
    hear.answer(Join(JOB, 1))
    assert hear.next() == Reported(JOB.id, 1, 2, Losses(1.0, 2.0))
    assert hear.hears_nothing()
    hear.answer(Release(JOB.id, 2))
    assert hear.next() == Reported(JOB.id, 1, 4, Losses(1.0, 2.0))
    hear.answer(Release(JOB.id, 4))
    assert hear.next() == Left(JOB.id, 1, Departure.FINISHED)


def test_others_train_while_a_job_waits(steps: Steps) -> None:
    worker = worker_of(steps, answer=0.05)
    hear = Listener(worker)
    hear.next()
    hear.answer(Join(JOB, 1), Join(OTHER, 1))
    assert isinstance(hear.next(), Reported)
    before = steps.steps[OTHER.id]
    await_that(lambda: steps.steps[OTHER.id] > before)
    assert hear.hears_nothing()
    assert steps.steps[JOB.id] == 2
    worker.order(Orders((Leave(OTHER.id, 1, Departure.STOPPED),), 0))


def test_jobs_that_report_together_go_on_together(steps: Steps) -> None:
    """Though they are answered one by one."""
    worker = worker_of(steps, answer=1000.0)
    hear = Listener(worker)
    hear.next()
    hear.answer(Join(JOB, 1), Join(TWIN, 1))
    for number in (2, 4):
        told = [hear.next(), hear.next()]
        assert told == [Reported(each, 1, number, Losses(1.0, 2.0)) for each in (JOB.id, TWIN.id)]
        if number == JOB.steps:
            break
        hear.answer(Release(JOB.id, number))
        threading.Event().wait(0.1)
        assert steps.steps[JOB.id] == number
        assert worker._answers_due > time.monotonic() + 900.0
        hear.answer(Release(TWIN.id, number))


def test_jobs_that_come_together_begin_together(steps: Steps) -> None:
    """Though they come one by one: what the first is an answer to is answered by the last."""
    worker = worker_of(steps, answer=1000.0)
    hear = Listener(worker)
    assert isinstance(hear.next(), Ready)
    worker.order(Orders((Join(JOB, 1),), 0))
    worker.listen(Call(1, 0.1))  # that its news are in the log is no answer to them
    assert not steps.steps.get(JOB.id)
    hear.answer(Join(TWIN, 1))
    assert {hear.next(), hear.next()} == {
        Reported(each, 1, 2, Losses(1.0, 2.0)) for each in (JOB.id, TWIN.id)
    }
    assert steps.steps == {JOB.id: 2, TWIN.id: 2}


def test_room_is_made_once_for_jobs_that_come_together(worker: Worker, steps: Steps) -> None:
    hear = Listener(worker)
    hear.next()
    hear.answer(Join(JOB, 1), Join(TWIN, 1))
    hear.next(), hear.next()
    hear.answer(Join(JOB, 1), Join(OTHER, 1))
    await_that(lambda: OTHER.id in steps.training)
    assert steps.expected == [[JOB.id, TWIN.id], [OTHER.id]]


def test_a_job_trains_on_the_device_that_it_was_launched_on(worker: Worker, steps: Steps) -> None:
    hear = Listener(worker)
    hear.next()
    hear.answer(Join(JOB, 1), Join(TWIN, 1, place=1))
    hear.next()
    assert steps.places == {JOB.id: 0, TWIN.id: 1}


def test_reports_of_one_pass_are_told_at_once(worker: Worker) -> None:
    hear = Listener(worker)
    hear.next()
    hear.answer(Join(JOB, 1), Join(TWIN, 1))
    assert len(worker.listen(Call(1, SECONDS)).news) == 2


def test_orders_that_come_twice_are_carried_out_once(worker: Worker, steps: Steps) -> None:
    hear = Listener(worker)
    hear.next()
    hear.answer(Join(JOB, 1), Join(JOB, 1))
    assert isinstance(hear.next(), Reported)
    hear.answer(Release(JOB.id, 2))
    assert isinstance(hear.next(), Reported)
    hear.answer(Join(JOB, 1), Release(JOB.id, 2))
    assert hear.hears_nothing()
    assert steps.steps[JOB.id] == 4
    hear.answer(Leave(JOB.id, 1, Departure.PAUSED), Leave(JOB.id, 1, Departure.PAUSED))
    assert hear.next() == Left(JOB.id, 1, Departure.PAUSED)
    assert hear.hears_nothing()
    assert steps.kept == [(JOB.id, True)]


def test_an_order_of_an_earlier_stay_is_void(worker: Worker, steps: Steps) -> None:
    hear = Listener(worker)
    hear.next()
    hear.answer(Join(OTHER, 1), Leave(OTHER.id, 1, Departure.PAUSED))
    assert hear.next() == Left(OTHER.id, 1, Departure.PAUSED)
    steps.steps[OTHER.id] = 0
    hear.answer(Join(OTHER, 2), Leave(OTHER.id, 1, Departure.PAUSED))
    await_that(lambda: OTHER.id in steps.residents)
    assert hear.hears_nothing()
    assert OTHER.id in steps.residents
    hear.answer(Leave(OTHER.id, 2, Departure.STOPPED))
    assert hear.next() == Left(OTHER.id, 2, Departure.STOPPED)
    assert steps.kept == [(OTHER.id, True), (OTHER.id, False)]


def test_news_are_told_until_they_are_confirmed(worker: Worker) -> None:
    worker.order(Orders((Join(JOB, 1),), 1))
    hear = Listener(worker)
    hear.next(), hear.next()
    pulse = worker.listen(Call(1, 0.0))
    assert [type(news) for news in pulse.news] == [Reported]
    assert worker.listen(Call(1, 0.0)) == pulse


def test_a_worker_that_nobody_listens_to_trains_no_more(steps: Steps) -> None:
    worker = worker_of(steps, hold=0.4)
    worker.listen(Call(0, SECONDS))
    worker.order(Orders((Join(OTHER, 1),), 1))

    def trains_when_it_is_listened_to(after: int = 0) -> bool:
        worker.listen(Call(1, 0.0))
        return steps.steps.get(OTHER.id, 0) > after

    await_that(trains_when_it_is_listened_to)
    threading.Event().wait(1.0)
    held_at = steps.steps[OTHER.id]
    threading.Event().wait(0.2)
    assert steps.steps[OTHER.id] <= held_at + 1  # a pass that was under way
    held_at = steps.steps[OTHER.id]
    await_that(lambda: trains_when_it_is_listened_to(held_at))


@pytest.mark.parametrize(
    ("error", "news"),
    [
        (UserError("study: wrong"), Broken("study: wrong", is_mistake=True)),
        (RuntimeError("no card"), Broken("RuntimeError: no card")),
    ],
)
def test_an_error_is_told(error: Exception, news: Broken) -> None:
    def start() -> tuple[Executor, Any]:
        raise error

    assert Listener(Worker(start, 60.0, 3.0)).next() == news
