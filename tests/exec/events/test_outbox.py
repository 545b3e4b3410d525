"""What comes to a run, by a clock that stands still unless it is told to go on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from alto_exec.events.inbox import Cancellation, Request, Submission
from alto_exec.events.outbox import Outbox
from alto_exec.events.past import Past
from alto_policy.events import Event, TaskArrived, TaskCancelled, TimerFired
from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId

T = TaskId("t")
JOB = Job(id=JobId("j"), hyperparameters=Hyperparameters(), steps=8, reports=4)
TASK = Task(id=T, jobs=(JOB,), backbone="tiny", max_length=8)


@dataclass
class Clock:
    seconds: float = 1000.0  # since the machine began

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Looks:
    """An inbox by what each look into it finds."""

    found: list[Sequence[Request] | None] = field(default_factory=list)

    def take(self) -> Sequence[Request] | None:
        return self.found.pop(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def told(outbox: Outbox) -> list[Event]:
    found = []
    while outbox:
        found.append(outbox.next())
    return found


def test_what_is_due_and_what_has_come_by_the_clock_of_the_run(clock: Clock) -> None:
    looks = Looks([(), (Submission(TASK), Cancellation(T)), None])
    outbox = Outbox(looks, Past(end=5.0, timers=(6.0,)))
    outbox.wake_at(7.0)
    outbox.look()
    assert told(outbox) == []
    clock.seconds += 2.0
    outbox.look()
    timers = [TimerFired(7.0), TimerFired(7.0)]
    assert told(outbox) == [*timers, TaskArrived(7.0, TASK), TaskCancelled(7.0, T)]
    outbox.look()
    outbox.look()  # into no inbox: there is nothing left that it could find
    assert told(outbox) == []


@pytest.mark.parametrize(
    ("timers", "is_open", "seconds"),
    [
        ((), True, 0.5),
        ((5.2,), True, 0.2),
        ((9.0,), True, 0.5),
        ((9.0,), False, 4.0),
        ((4.0,), False, 0.0),
        ((), False, None),
    ],
    ids=["inbox", "timer sooner", "timer later", "timer alone", "timer overdue", "nothing"],
)
def test_seconds_until_the_next_look(
    clock: Clock, timers: tuple[float, ...], is_open: bool, seconds: float | None
) -> None:
    outbox = Outbox(Looks([None]), Past(end=5.0))
    if not is_open:
        outbox.look()
    for timer in timers:
        outbox.wake_at(timer)
    assert outbox.seconds_to_look(0.5) == (seconds if seconds is None else pytest.approx(seconds))
