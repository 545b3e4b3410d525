"""Best adapters are on disk before the log tells that their jobs stop; without Ray's processes."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray

from alto_exec.events.past import Past
from alto_exec.events.undecided import UndecidedError
from alto_exec.jobs.residence import Losses
from alto_exec.ray_cluster.head import RayBackend
from alto_exec.ray_cluster.node.messages import (
    CALL,
    ORDERS,
    PULSE,
    Broken,
    News,
    Order,
    Pulse,
    Reported,
    Secure,
    Secured,
)
from alto_exec.ray_cluster.remote import Patience, RemoteExecutor
from alto_exec.ray_cluster.roster import Roster
from alto_exec.site import TaskFiles
from alto_policy.decisions import ExitReason, Stop, WakeAt
from alto_policy.events import LossReported
from alto_policy.types import Hyperparameters, Job, JobId, TaskId
from alto_policy.view import Status

JOB, TWIN = (
    Job(id=JobId(name), hyperparameters=Hyperparameters(), steps=4, reports=2)
    for name in ("job", "twin")
)
TASK, OTHER = TaskId("task"), TaskId("other")
REPORTED = Reported(JOB.id, 1, 2, Losses(1.0, 2.0))


class Quarters:
    """Writes down what is said; whoever listens hears what was put here."""

    def __init__(self) -> None:
        self.answered: list[int] = []
        self.orders: list[Order] = []
        self.confirmed: list[int] = []
        self.pulse = ""

    def order(self, message: str) -> None:
        told = ORDERS.read(message)
        self.answered.append(told.answered)
        self.orders += told.orders

    def listen(self, tenant: str, message: str) -> str:
        self.confirmed.append(CALL.read(message).confirmed)
        return self.pulse


def test_what_is_not_in_the_log_is_neither_confirmed_nor_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    quarters: Any = Quarters()
    executor = RemoteExecutor("tenant", quarters, Patience())
    executor.join(JOB, 1, 0)
    quarters.pulse = PULSE.dump(Pulse(0, (REPORTED,), 0, 0.0))
    executor.listening()
    assert list(executor.hear()) == [REPORTED]
    executor.secure([JOB])
    assert quarters.orders[-1] == Secure((JOB,))
    quarters.pulse = PULSE.dump(Pulse(0, (REPORTED, Secured((JOB.id,))), 0, 0.0))
    executor.listening(is_logged=False)
    assert list(executor.hear()) == [Secured((JOB.id,))]
    assert quarters.confirmed == [0, 0]
    assert set(quarters.answered) == {0}
    executor.listening()
    assert (quarters.confirmed[-1], quarters.answered[-1]) == (2, 2)


class Scripted(Roster):
    """Executors that say what is written, one piece of news at each look."""

    def __init__(self, script: Sequence[tuple[TaskId, News]], there: Sequence[TaskId]) -> None:
        self.asked: list[tuple[TaskId, list[Job]]] = []
        self._script = list(script)
        self._there = there

    def get(self, task: TaskId) -> Any:
        roster = self

        class Executor:
            def secure(self, jobs: Sequence[Job]) -> None:
                roster.asked.append((task, list(jobs)))

        return Executor() if task in self._there else None

    def listen(self, seconds: float, *, is_logged: bool = True) -> Iterator[tuple[TaskId, News]]:
        assert not is_logged
        yield self._script.pop(0)


def test_all_are_waited_for_and_other_news_is_handed_on() -> None:
    told: list[tuple[TaskId, News]] = [
        (TASK, Secured((JOB.id,))),  # said to an earlier head
        (OTHER, Secured((JOB.id,))),
        (OTHER, Broken("gone")),
        (TASK, REPORTED),
        (TASK, Secured((JOB.id, TWIN.id))),
        (TASK, REPORTED),  # nobody asks for this
    ]
    roster = Scripted(told, [TASK, OTHER])
    heard = list(roster.secure({TASK: (JOB, TWIN), OTHER: (JOB,)}))
    assert heard == [(OTHER, Broken("gone")), (TASK, REPORTED)]
    assert roster.asked == [(TASK, [JOB, TWIN]), (OTHER, [JOB])]


@pytest.mark.parametrize("there", [[], [TASK]], ids=["before it is asked", "then"])
def test_who_loses_them_decides_again(there: list[TaskId]) -> None:
    roster = Scripted([(TASK, Broken("gone"))], there)
    with pytest.raises(UndecidedError, match="task: lost its executor"):
        list(roster.secure({TASK: (JOB,)}))


def test_the_head_asks_for_those_that_are_about_to_leave_an_executor() -> None:
    """A job that has paused left with all it had."""
    roster: Any = Scripted([(TASK, REPORTED), (TASK, Secured((JOB.id,)))], [TASK])
    roster.sweep = lambda: None
    statuses = {JOB.id: Status.STOPPING, TWIN.id: Status.ENDED}
    view: Any = SimpleNamespace(
        status=statuses.__getitem__,
        spec={JOB.id: JOB, TWIN.id: TWIN}.__getitem__,
        task_of=lambda _: SimpleNamespace(id=TASK),
    )
    nobody_comes: Any = SimpleNamespace(take=lambda: None)
    head = RayBackend(nobody_comes, cast(TaskFiles, None), roster, Past(), view)
    stops = [Stop(job, ExitReason.UNDERPERFORMED) for job in statuses]
    head.prepare([WakeAt(9.0), *stops])
    assert roster.asked == [(TASK, [JOB])]
    event = head.next_event()
    assert isinstance(event, LossReported), "what came meanwhile is lost"
    roster.asked.clear()
    head.prepare([WakeAt(9.0), stops[1]])
    assert not roster.asked
