"""Every legal move of the ledger, and that an illegal one changes nothing."""

from collections.abc import Sequence

import pytest

from alto_policy.decisions import (
    Decision,
    ExitReason,
    Launch,
    Pause,
    StartExecutor,
    Stop,
    StopExecutor,
    WakeAt,
)
from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    TaskArrived,
    TimerFired,
)
from alto_policy.ledger.cluster import (
    Cluster,
    ExecutorStatus,
    IllegalDecisionError,
    ImpossibleEventError,
    Status,
)
from alto_policy.ledger.transitions import NEXT_STATUS
from alto_policy.types import GpuId, JobId, TaskId
from tests.policy.cases import gpus, job, memory, report, task

A, B, T, U = JobId("a"), JobId("b"), TaskId("t"), TaskId("u")
START = StartExecutor(T, (GpuId(0),))
UP = ExecutorUp(0.0, T, memory(4))
LAUNCH = Launch(T, GpuId(0), (A,))
PAUSE, STOP = Pause(A), Stop(A, ExitReason.DIVERGED)
DOWN = ExecutorDown(9.0, T)
REASON = ExitReason.DIVERGED


def left(how: Departure, name: JobId = A) -> JobLeft:
    return JobLeft(9.0, name, how)


Move = Event | Decision


def cluster(*moves: Move) -> Cluster:
    """Task t of jobs a, b and large, and task u of job c, on two GPUs."""
    ledger = Cluster(gpus(2))
    jobs = [job("a"), job("b"), job("large", batch_size=5)]
    make(ledger, [TaskArrived(0.0, task("t", jobs)), TaskArrived(0.0, task("u", [job("c")]))])
    make(ledger, moves)
    return ledger


def make(ledger: Cluster, moves: Sequence[Move]) -> None:
    for move in moves:
        if isinstance(move, Decision):
            ledger.commit(move)
        else:
            ledger.apply(move)


def snapshot(ledger: Cluster) -> object:
    """All that a policy could ask."""
    jobs = [JobId(name) for name in ("a", "b", "large", "c")]
    return (
        [(ledger.status(j), ledger.reason(j), tuple(ledger.history(j))) for j in jobs],
        [(t, [tuple(ledger.jobs(t, s)) for s in Status], ledger.executor(t)) for t in (T, U)],
        [tuple(ledger.residents(gpu.id)) for gpu in ledger.gpus],
        (ledger.free_gpus(), tuple(ledger.waiting()), tuple(ledger.tasks())),
    )


READY = (START, UP)
RUNNING = (*READY, LAUNCH)
PAUSING = (*RUNNING, PAUSE)
STOPPING = (*RUNNING, STOP)
PAUSED = (*PAUSING, left(Departure.PAUSED))
ENDED = (*RUNNING, left(Departure.FINISHED))


@pytest.mark.parametrize(
    ("moves", "status", "is_resident"),
    [
        pytest.param((), Status.QUEUED, False, id="arrived"),
        pytest.param(RUNNING, Status.RUNNING, True, id="launched"),
        pytest.param(PAUSING, Status.PAUSING, True, id="told to pause"),
        pytest.param(STOPPING, Status.STOPPING, True, id="told to stop"),
        pytest.param((*PAUSING, STOP), Status.STOPPING, True, id="told to pause, then to stop"),
        pytest.param(PAUSED, Status.PAUSED, False, id="paused"),
        pytest.param((*PAUSED, LAUNCH), Status.RUNNING, True, id="launched again"),
        pytest.param((STOP,), Status.ENDED, False, id="stopped while queued"),
        pytest.param((*PAUSED, STOP), Status.ENDED, False, id="stopped while paused"),
        *(
            pytest.param((*before, left(how)), Status.ENDED, False, id=f"{how} while {name}")
            for how in (Departure.FINISHED, Departure.FAILED)
            for name, before in (("running", RUNNING), ("pausing", PAUSING), ("stopping", STOPPING))
        ),
        pytest.param((*STOPPING, left(Departure.STOPPED)), Status.ENDED, False, id="stopped"),
        pytest.param(
            (*PAUSING, STOP, left(Departure.PAUSED)), Status.ENDED, False, id="paused, then told"
        ),
        pytest.param((*RUNNING, left(Departure.EVICTED)), Status.PAUSED, False, id="evicted"),
        pytest.param(
            (*PAUSING, left(Departure.EVICTED)), Status.PAUSED, False, id="evicted while pausing"
        ),
        pytest.param(
            (*STOPPING, left(Departure.EVICTED)), Status.ENDED, False, id="evicted while stopping"
        ),
        pytest.param((*RUNNING, DOWN), Status.PAUSED, False, id="executor down"),
        pytest.param((*PAUSING, DOWN), Status.PAUSED, False, id="executor down while pausing"),
        pytest.param((*STOPPING, DOWN), Status.ENDED, False, id="executor down while stopping"),
    ],
)
def test_moves_of_a_job(moves: Sequence[Move], status: Status, is_resident: bool) -> None:
    ledger = cluster(*moves)
    assert ledger.status(A) is status
    assert [s for s in Status if A in ledger.jobs(T, s)] == [status]
    assert (A in ledger.residents(GpuId(0))) is is_resident


@pytest.mark.parametrize(
    ("moves", "status", "free"),
    [
        pytest.param((), None, (0, 1), id="not there"),
        pytest.param((START,), ExecutorStatus.STARTING, (1,), id="starting"),
        pytest.param(READY, ExecutorStatus.UP, (1,), id="up"),
        pytest.param((START, StopExecutor(T)), ExecutorStatus.STOPPING, (1,), id="ended early"),
        pytest.param((*READY, StopExecutor(T)), ExecutorStatus.STOPPING, (1,), id="stopping"),
        pytest.param((START, DOWN), None, (0, 1), id="down while starting"),
        pytest.param((*RUNNING, DOWN), None, (0, 1), id="down while up"),
        pytest.param((*READY, StopExecutor(T), DOWN), None, (0, 1), id="down as asked"),
    ],
)
def test_moves_of_an_executor(
    moves: Sequence[Move], status: ExecutorStatus | None, free: tuple[int, ...]
) -> None:
    ledger = cluster(*moves)
    executor = ledger.executor(T)
    assert (executor and executor.status) is status
    assert ledger.free_gpus() == free


@pytest.mark.parametrize(
    ("moves", "decision", "message"),
    [
        pytest.param(RUNNING, LAUNCH, "job a is running", id="launch twice"),
        pytest.param(ENDED, LAUNCH, "job a is ended", id="launch the dead"),
        pytest.param(PAUSING, LAUNCH, "job a is pausing", id="launch before it has left"),
        pytest.param((), LAUNCH, "the task has no executor", id="launch without executor"),
        pytest.param((START,), LAUNCH, "its executor is starting", id="launch too early"),
        pytest.param(
            (*READY, StopExecutor(T)), LAUNCH, "its executor is stopping", id="launch too late"
        ),
        pytest.param(READY, Launch(T, GpuId(1), (A,)), "has GPUs", id="GPU of no executor"),
        pytest.param(READY, Launch(T, GpuId(0), ()), "at least one", id="launch nobody"),
        pytest.param(READY, Launch(T, GpuId(0), (A, A)), "distinct", id="launch one job twice"),
        pytest.param(
            READY, Launch(T, GpuId(0), (A, JobId("c"))), "job c is of another task", id="stranger"
        ),
        pytest.param(
            READY, Launch(T, GpuId(0), (A, JobId("x"))), "job x is unknown", id="unknown job"
        ),
        pytest.param(READY, Launch(T, GpuId(0), (JobId("large"),)), "no room", id="too large"),
        pytest.param(READY, PAUSE, "job a is queued", id="pause a queued job"),
        pytest.param(PAUSED, PAUSE, "job a is paused", id="pause a paused job"),
        pytest.param(STOPPING, PAUSE, "job a is stopping", id="pause a stopping job"),
        pytest.param(STOPPING, STOP, "job a is stopping", id="stop twice"),
        pytest.param(ENDED, STOP, "job a is ended", id="stop the dead"),
        pytest.param((START,), START, "its executor is starting", id="start twice"),
        pytest.param((START,), StartExecutor(U, (GpuId(0),)), "GPU 0 is held by t", id="GPU taken"),
        pytest.param((), StartExecutor(T, (GpuId(7),)), "there is no GPU 7", id="no such GPU"),
        pytest.param((), StartExecutor(T, ()), "the task takes 1 GPUs", id="too few GPUs"),
        pytest.param((), StartExecutor(TaskId("x"), ()), "no such task", id="start of no task"),
        pytest.param((), StopExecutor(T), "the task has no executor", id="stop no executor"),
        pytest.param(
            (START, StopExecutor(T)), StopExecutor(T), "is stopping", id="stop executor twice"
        ),
        pytest.param(RUNNING, StopExecutor(T), "job a is running", id="stop over a running job"),
        pytest.param(STOPPING, StopExecutor(T), "job a is stopping", id="stop over a leaving job"),
    ],
)
def test_an_illegal_decision_is_named_and_changes_nothing(
    moves: Sequence[Move], decision: Decision, message: str
) -> None:
    ledger = cluster(*moves)
    before = snapshot(ledger)
    with pytest.raises(IllegalDecisionError, match=rf"^{type(decision).__name__}\(.*{message}"):
        ledger.commit(decision)
    assert snapshot(ledger) == before


@pytest.mark.parametrize(
    ("moves", "event", "message"),
    [
        pytest.param((), TaskArrived(1.0, task("t", [job("z")])), "arrived before", id="task"),
        pytest.param((), TaskArrived(1.0, task("v", [job("a")])), "job a of task v", id="job"),
        pytest.param((), UP, "task t has no executor", id="executor not asked for"),
        pytest.param(READY, UP, "the executor of task t is up", id="up twice"),
        pytest.param((), DOWN, "task t has no executor", id="down before it was up"),
        pytest.param(READY, report("a", 1, 1.0), "job a is queued", id="report of a queued job"),
        pytest.param(PAUSED, report("a", 1, 1.0), "job a is paused", id="report of a paused job"),
        pytest.param(READY, report("x", 1, 1.0), "job x is unknown", id="report of nobody"),
        pytest.param(RUNNING, report("a", 21, 1.0), "has 20 steps, got 21", id="beyond the end"),
        pytest.param(RUNNING, report("a", 0, 1.0), "has 20 steps, got 0", id="before the start"),
        pytest.param(READY, left(Departure.FINISHED), "job a is queued", id="left unlaunched"),
        pytest.param(RUNNING, left(Departure.PAUSED), "job a is running", id="paused unasked"),
        pytest.param(RUNNING, left(Departure.STOPPED), "job a is running", id="stopped unasked"),
        pytest.param(ENDED, left(Departure.FINISHED), "job a is ended", id="left twice"),
        pytest.param((), left(Departure.FAILED, JobId("x")), "job x is unknown", id="nobody left"),
    ],
)
def test_an_impossible_event_is_named_and_changes_nothing(
    moves: Sequence[Move], event: Event, message: str
) -> None:
    ledger = cluster(*moves)
    before = snapshot(ledger)
    with pytest.raises(ImpossibleEventError, match=message):
        ledger.apply(event)
    assert snapshot(ledger) == before


def test_launch_is_all_or_nothing() -> None:
    ledger = cluster(*READY)
    before = snapshot(ledger)
    with pytest.raises(IllegalDecisionError, match="no room"):
        ledger.commit(Launch(T, GpuId(0), (A, B, JobId("large"))))
    assert snapshot(ledger) == before


def test_memory_is_free_only_when_the_job_has_left() -> None:
    ledger = cluster(START, ExecutorUp(0.0, T, memory(1)), LAUNCH, STOP)
    with pytest.raises(IllegalDecisionError, match="no room beside"):
        ledger.commit(Launch(T, GpuId(0), (B,)))
    make(ledger, [left(Departure.STOPPED), Launch(T, GpuId(0), (B,))])
    assert tuple(ledger.residents(GpuId(0))) == (B,)


@pytest.mark.parametrize(
    ("moves", "news", "steps", "is_fresh"),
    [
        pytest.param(RUNNING, report("a", 3, 1.0), [3], True, id="running"),
        pytest.param(PAUSING, report("a", 3, 1.0), [3], False, id="pausing"),
        pytest.param(STOPPING, report("a", 3, 1.0), [3], False, id="stopping"),
        pytest.param(ENDED, report("a", 3, 1.0), [3], False, id="ended"),
        pytest.param((*RUNNING, report("a", 3, 1.0)), report("a", 3, 9.0), [3], False, id="again"),
        pytest.param((*RUNNING, report("a", 3, 1.0)), report("a", 2, 9.0), [3], False, id="older"),
        pytest.param((*RUNNING, report("a", 3, 1.0)), report("a", 4, 9.0), [3, 4], True, id="next"),
    ],
)
def test_stale_reports_are_kept_from_the_policy(
    moves: Sequence[Move], news: Event, steps: list[int], is_fresh: bool
) -> None:
    ledger = cluster(*moves)
    assert ledger.apply(news) is is_fresh
    assert [known.step for known in ledger.history(A)] == steps
    assert all(known.val_loss == 1.0 for known in ledger.history(A)[:1])


def test_an_executor_may_come_up_before_it_hears_the_stop() -> None:
    ledger = cluster(START, StopExecutor(T))
    assert not ledger.apply(UP)
    executor = ledger.executor(T)
    assert executor is not None
    assert executor.status is ExecutorStatus.STOPPING


@pytest.mark.parametrize(
    ("moves", "reason"),
    [
        pytest.param(STOPPING, REASON, id="told to stop"),
        pytest.param((*STOPPING, left(Departure.STOPPED)), REASON, id="stopped"),
        pytest.param((*STOPPING, left(Departure.FINISHED)), None, id="done before it heard"),
        pytest.param(RUNNING, None, id="running"),
    ],
)
def test_reason(moves: Sequence[Move], reason: ExitReason | None) -> None:
    assert cluster(*moves).reason(A) is reason


def test_an_eviction_teaches_what_is_too_much() -> None:
    ledger = cluster(*READY, Launch(T, GpuId(0), (A, B)), left(Departure.EVICTED))
    assert capacity(ledger) == 1  # two bytes were too much
    with pytest.raises(IllegalDecisionError, match="no room beside"):
        ledger.commit(LAUNCH)
    make(ledger, [DOWN, START, UP])
    assert capacity(ledger) == 1
    make(ledger, [LAUNCH, left(Departure.EVICTED)])
    assert capacity(ledger) == 0


def test_a_smaller_gpu_after_an_eviction_keeps_its_own_capacity() -> None:
    ledger = cluster(*READY, Launch(T, GpuId(0), (A, B)), left(Departure.EVICTED), DOWN)
    make(ledger, [START, ExecutorUp(0.0, T, memory(0))])
    assert capacity(ledger) == 0


def capacity(ledger: Cluster) -> int:
    executor = ledger.executor(T)
    assert executor is not None
    assert executor.memory is not None
    return executor.memory.capacity


def test_waiting_tasks_stay_in_the_order_of_arrival() -> None:
    ledger = cluster()
    assert tuple(ledger.waiting()) == (T, U)
    ledger.commit(START)
    assert tuple(ledger.waiting()) == (U,)
    ledger.apply(DOWN)
    assert tuple(ledger.waiting()) == (T, U)


@pytest.mark.parametrize(
    "moves",
    [
        pytest.param([Stop(JobId("c"), REASON)], id="stopped while queued"),
        pytest.param(
            [
                StartExecutor(U, (GpuId(1),)),
                ExecutorUp(0.0, U, memory(4)),
                Launch(U, GpuId(1), (JobId("c"),)),
                Stop(JobId("c"), REASON),
                ExecutorDown(1.0, U),
            ],
            id="executor down while stopping",
        ),
    ],
)
def test_a_task_that_is_over_does_not_wait(moves: Sequence[Move]) -> None:
    assert tuple(cluster(*moves).waiting()) == (T,)


def test_timers_change_nothing() -> None:
    ledger = cluster()
    before = snapshot(ledger)
    ledger.commit(WakeAt(3.0))
    assert ledger.apply(TimerFired(3.0))
    assert snapshot(ledger) == before


def test_gpus_have_distinct_ids() -> None:
    with pytest.raises(ValueError, match=r"distinct ids, got \[0, 0\]"):
        Cluster(gpus(1) * 2)


def test_who_comes_back_is_paused_afterwards() -> None:
    paused = {cause for (_, cause), after in NEXT_STATUS.items() if after is Status.PAUSED}
    assert {how for how in Departure if how.comes_back} == paused & {*Departure}
