"""An executor's process, without a process: messages may come twice, and nobody may listen."""

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from alto_exec.executor import Executor, Report
from alto_exec.ray_cluster.messages import Broken, Join, Leave, Left, News, Ready, Release, Reported
from alto_exec.ray_cluster.worker import Worker
from alto_exec.residence import Losses
from alto_policy.events import Departure
from alto_policy.types import Hyperparameters, Job, JobId
from alto_runs.errors import UserError
from tests.policy.cases import memory

JOB = Job(id=JobId("job"), hyperparameters=Hyperparameters(), steps=4, reports=2)
TWIN = Job(id=JobId("twin"), hyperparameters=Hyperparameters(), steps=4, reports=2)
OTHER = Job(id=JobId("other"), hyperparameters=Hyperparameters(), steps=1000, reports=1)


class Steps:
    """Counts steps in place of training; reports come as they are due."""

    def __init__(self) -> None:
        self.training: list[JobId] = []
        self.waiting: dict[JobId, int] = {}
        self.steps: dict[JobId, int] = {}
        self.kept: list[tuple[JobId, bool]] = []
        self.tokens_trained = 0

    @property
    def residents(self) -> list[JobId]:
        return [*self.training, *self.waiting]

    def launch(self, job: Job) -> Report | None:
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

    def next(self) -> News | None:
        """The next piece of news; None if there is none for a while."""
        pulse = self._worker.listen(self._num_heard, 0.3)
        assert pulse.first == self._num_heard
        self._num_heard += bool(pulse.news)
        return pulse.news[0] if pulse.news else None


@pytest.fixture
def steps() -> Steps:
    return Steps()


def worker_of(steps: Steps, hold: float = 60.0, orphan: float = 60.0, end: Any = None) -> Worker:
    def start() -> tuple[Executor, Any]:
        return cast(Executor, steps), memory(10)

    return Worker(start, end or (lambda: None), hold, orphan)


@pytest.fixture
def worker(steps: Steps) -> Iterator[Worker]:
    worker = worker_of(steps)
    yield worker
    worker.order([Leave(OTHER.id, 1, Departure.STOPPED)])


def test_a_job_waits_at_its_report_and_trains_on_when_released(worker: Worker) -> None:
    hear = Listener(worker)
    assert isinstance(hear.next(), Ready)
    worker.order([Join(JOB, 1)])
    assert hear.next() == Reported(JOB.id, 1, 2, Losses(1.0, 2.0))
    assert hear.next() is None
    worker.order([Release(JOB.id, 2)])
    assert hear.next() == Reported(JOB.id, 1, 4, Losses(1.0, 2.0))
    worker.order([Release(JOB.id, 4)])
    assert hear.next() == Left(JOB.id, 1, Departure.FINISHED)


def test_others_train_while_a_job_waits(
    worker: Worker, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alto_exec.ray_cluster.worker._ANSWER_SECONDS", 0.05)
    hear = Listener(worker)
    hear.next()
    worker.order([Join(JOB, 1), Join(OTHER, 1)])
    assert isinstance(hear.next(), Reported)
    before = steps.steps[OTHER.id]
    assert hear.next() is None
    assert steps.steps[OTHER.id] > before
    assert steps.steps[JOB.id] == 2


def test_jobs_that_report_together_go_on_together(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though they are answered one by one."""
    monkeypatch.setattr("alto_exec.ray_cluster.worker._ANSWER_SECONDS", 1000.0)
    worker = worker_of(steps)
    hear = Listener(worker)
    hear.next()
    worker.order([Join(JOB, 1), Join(TWIN, 1)])
    for number in (2, 4):
        told = [hear.next(), hear.next()]
        assert told == [Reported(each, 1, number, Losses(1.0, 2.0)) for each in (JOB.id, TWIN.id)]
        if number == JOB.steps:
            break
        worker.order([Release(JOB.id, number)])
        threading.Event().wait(0.1)
        assert steps.steps[JOB.id] == number
        worker.order([Release(TWIN.id, number)])


def test_jobs_that_come_together_begin_together(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though they come one by one: what the first is an answer to is confirmed after the last."""
    monkeypatch.setattr("alto_exec.ray_cluster.worker._ANSWER_SECONDS", 1000.0)
    worker = worker_of(steps)
    hear = Listener(worker)
    assert isinstance(hear.next(), Ready)
    worker.order([Join(JOB, 1)])
    threading.Event().wait(0.1)
    assert not steps.steps.get(JOB.id)
    worker.order([Join(TWIN, 1)])
    assert {hear.next(), hear.next()} == {
        Reported(each, 1, 2, Losses(1.0, 2.0)) for each in (JOB.id, TWIN.id)
    }
    assert steps.steps == {JOB.id: 2, TWIN.id: 2}


def test_orders_that_come_twice_are_carried_out_once(worker: Worker, steps: Steps) -> None:
    hear = Listener(worker)
    hear.next()
    worker.order([Join(JOB, 1), Join(JOB, 1)])
    assert isinstance(hear.next(), Reported)
    worker.order([Release(JOB.id, 2)])
    assert isinstance(hear.next(), Reported)
    worker.order([Join(JOB, 1), Release(JOB.id, 2)])
    assert hear.next() is None
    assert steps.steps[JOB.id] == 4
    worker.order([Leave(JOB.id, 1, Departure.PAUSED), Leave(JOB.id, 1, Departure.PAUSED)])
    assert hear.next() == Left(JOB.id, 1, Departure.PAUSED)
    assert hear.next() is None
    assert steps.kept == [(JOB.id, True)]


def test_an_order_of_an_earlier_stay_is_void(worker: Worker, steps: Steps) -> None:
    hear = Listener(worker)
    hear.next()
    worker.order([Join(OTHER, 1), Leave(OTHER.id, 1, Departure.PAUSED)])
    assert hear.next() == Left(OTHER.id, 1, Departure.PAUSED)
    steps.steps[OTHER.id] = 0
    worker.order([Join(OTHER, 2), Leave(OTHER.id, 1, Departure.PAUSED)])
    assert hear.next() is None
    assert OTHER.id in steps.residents
    worker.order([Leave(OTHER.id, 2, Departure.STOPPED)])
    assert hear.next() == Left(OTHER.id, 2, Departure.STOPPED)
    assert steps.kept == [(OTHER.id, True), (OTHER.id, False)]


def test_news_are_told_until_they_are_confirmed(worker: Worker) -> None:
    worker.order([Join(JOB, 1)])
    hear = Listener(worker)
    hear.next(), hear.next()
    pulse = worker.listen(1, 0.0)
    assert [type(news) for news in pulse.news] == [Reported]
    assert worker.listen(1, 0.0) == pulse


def test_a_worker_that_nobody_listens_to_trains_no_more_and_then_gives_up(steps: Steps) -> None:
    gone = threading.Event()
    worker = worker_of(steps, hold=0.2, orphan=1.5, end=gone.set)
    worker.listen(0, 5.0)
    worker.order([Join(OTHER, 1)])
    worker.listen(1, 0.0)
    threading.Event().wait(0.6)
    held_at = steps.steps[OTHER.id]
    threading.Event().wait(0.2)
    assert steps.steps[OTHER.id] == held_at > 0
    worker.listen(1, 0.0)
    threading.Event().wait(0.3)
    assert steps.steps[OTHER.id] > held_at
    assert gone.wait(5.0)


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

    assert Listener(Worker(start, lambda: None, 60.0, 60.0)).next() == news
