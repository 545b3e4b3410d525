import math
from dataclasses import replace

import pytest

from alto_policy.controller import Controller, Difference, replay
from alto_policy.decisions import Decision, ExitReason, Launch, Pause, StartExecutor, Stop
from alto_policy.events import Event, LossReported, TaskArrived
from alto_policy.ledger.cluster import (
    Cluster,
    ClusterView,
    IllegalDecisionError,
    ImpossibleEventError,
)
from alto_policy.policies import build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry, dump_entry, load
from alto_policy.types import GpuId, Job, JobId, TaskId
from tests.hash_seed import printed_under_two_seeds
from tests.policy.cases import UP, ToyBackend, gpus, job, play, report, task

ARRIVAL = TaskArrived(0.0, task("t", [job("a")]))


class Scripted:
    """Answers each event with what the script says next."""

    def __init__(self, *script: tuple[Decision, ...]) -> None:
        self.script = list(script)
        self.seen: list[Event] = []

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]:
        self.seen.append(event)
        return self.script.pop(0)


def test_an_entry_is_recorded_before_its_decisions_are_handed_out() -> None:
    recorded: list[Entry] = []
    controller = Controller(build(FifoSettings()), Cluster(gpus()), recorded.append)
    decisions = controller.handle(ARRIVAL)
    assert recorded == [Entry(ARRIVAL, decisions)]


def test_an_illegal_decision_is_neither_recorded_nor_handed_out() -> None:
    recorded: list[Entry] = []
    policy = Scripted((Pause(JobId("a")),))
    with pytest.raises(IllegalDecisionError, match="job a is queued"):
        Controller(policy, Cluster(gpus()), recorded.append).handle(ARRIVAL)
    assert recorded == []


@pytest.mark.parametrize("t", [math.nan, math.inf])
def test_an_event_of_no_time_changes_nothing(t: float) -> None:
    recorded: list[Entry] = []
    cluster = Cluster(gpus())
    with pytest.raises(ImpossibleEventError, match="t must be finite"):
        Controller(build(FifoSettings()), cluster, recorded.append).handle(replace(ARRIVAL, t=t))
    assert recorded == []
    assert not cluster.tasks()


def test_stale_news_is_recorded_but_kept_from_the_policy() -> None:
    recorded: list[Entry] = []
    start = StartExecutor(TaskId("t"), (GpuId(0),))
    launch = Launch(TaskId("t"), GpuId(0), (JobId("a"),))
    policy = Scripted((start,), (launch,), (Stop(JobId("a"), ExitReason.DIVERGED),))
    controller = Controller(policy, Cluster(gpus()), recorded.append)
    late = report("a", 2, 1.0)
    for event in (ARRIVAL, UP, report("a", 1, 1.0), late):
        controller.handle(event)
    assert recorded[-1] == Entry(late, ())
    assert late not in policy.seen


def curve(job: Job, step: int) -> float:
    return 1.0 + int(job.id[1:]) / 10 + step / 100


def entries() -> list[Entry]:
    jobs = [job(f"j{i}", batch_size=1 + i % 4) for i in range(12)]
    return play(build(AltoSettings()), ToyBackend([task("t", jobs)], curve, 6))


def test_replay_of_a_log_that_was_written_and_read() -> None:
    log = load(map(dump_entry, entries()))
    assert replay(log.entries, Controller(build(AltoSettings()), Cluster(gpus()))) is None


def test_replay_points_at_the_first_difference() -> None:
    logged = entries()
    first = next(i for i, entry in enumerate(logged) if isinstance(entry.event, LossReported))
    found = replay(logged, Controller(build(FifoSettings()), Cluster(gpus())))
    assert isinstance(found, Difference)
    assert found.index <= first + 1
    assert (found.event, found.logged) == (
        logged[found.index].event,
        logged[found.index].decisions,
    )
    assert found.decided != found.logged


def test_the_log_does_not_depend_on_the_hash_seed() -> None:
    script = (
        "from tests.policy.test_controller import entries, dump_entry\n"
        "print(*map(dump_entry, entries()), sep='\\n')"
    )
    logs = printed_under_two_seeds(script)
    assert logs[0] == logs[1]
    assert logs[0].count(b"\n") == len(entries())
