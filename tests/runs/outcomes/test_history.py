"""What became of jobs and executors, told from hand-written logs."""

import math

import pytest

from alto_policy.decisions import ExitReason, StartExecutor, Stop, StopExecutor
from alto_policy.events import Departure, ExecutorDown, JobLeft, LossReported, TaskArrived
from alto_policy.runlog import RunLog
from alto_policy.types import GpuId, JobId, TaskId
from alto_runs.errors import UserError
from alto_runs.outcomes.history import ExecutorSpan, Outcome, Residency, follow
from alto_runs.outcomes.metrics import measure
from tests.runs.cases import FATES, T, entry, fates, job, launch, log_of, task, up

G0, G1 = GpuId(0), GpuId(1)
ARRIVED = entry(TaskArrived(0.0, task("t", [job("a"), job("b")])), StartExecutor(T, (G0,)))


@pytest.mark.parametrize(
    ("name", "outcome", "reason", "steps", "stays"),
    [
        ("finished", Outcome.FINISHED, None, 10, [(10, 39, Departure.FINISHED)]),
        ("hasty", Outcome.FINISHED, None, 10, [(10, 36, Departure.FINISHED)]),
        ("weak", Outcome.STOPPED, ExitReason.UNDERPERFORMED, 2, [(10, 21, Departure.STOPPED)]),
        ("diverged", Outcome.STOPPED, ExitReason.DIVERGED, 4, [(10, 25, Departure.STOPPED)]),
        ("broken", Outcome.STOPPED, ExitReason.NON_FINITE, 2, [(10, 27, Departure.STOPPED)]),
        ("failed", Outcome.FAILED, None, 0, [(10, 30, Departure.FAILED)]),
        ("evicted", Outcome.PAUSED, None, 4, [(10, 29, Departure.EVICTED)]),
        ("outranked", Outcome.STOPPED, ExitReason.UNDERPERFORMED, 2, [(21, 32, Departure.PAUSED)]),
        ("cancelled", Outcome.STOPPED, ExitReason.CANCELLED, 0, []),
        ("paused", Outcome.PAUSED, None, 2, [(21, 34, Departure.PAUSED)]),
        ("running", Outcome.RUNNING, None, 4, [(34, 42, None)]),
        ("queued", Outcome.QUEUED, None, 0, []),
    ],
)
def test_fates(
    name: str,
    outcome: Outcome,
    reason: ExitReason | None,
    steps: int,
    stays: list[tuple[float, float, Departure | None]],
) -> None:
    found = follow(fates()).jobs[JobId(name)]
    assert (found.task, found.outcome, found.reason) == (T, outcome, reason)
    assert (found.steps, found.samples) == (steps, 2 * steps)
    assert found.residencies == tuple(Residency(G0, *stay) for stay in stays)


def test_a_run_that_goes_on() -> None:
    history = follow(fates())
    assert [job.spec.id for job in history.of_task(history.tasks[0])] == list(FATES)
    assert history.arrivals == {T: 2.0}
    assert history.executors == (ExecutorSpan(T, (G0,), 10.0, 42.0),)
    assert history.end == 42.0
    assert [r.step for r in history.jobs[JobId("diverged")].reports] == [2, 4]
    assert math.isnan(history.jobs[JobId("broken")].reports[0].val_loss)


def test_an_executor_that_went_down_unasked() -> None:
    """Its job falls back to an older checkpoint and reports a second time: the first counts."""
    a = JobId("a")
    history = follow(
        log_of(
            ARRIVED,
            entry(up(1.0), launch("a")),
            entry(LossReported(3.0, a, 2, 5.0, 5.0)),
            entry(LossReported(4.0, a, 4, 4.0, 4.0)),
            entry(ExecutorDown(5.0, T), StartExecutor(T, (G0,))),
            entry(up(8.0), launch("a")),
            entry(LossReported(9.0, a, 4, 4.5, 4.5)),
            entry(LossReported(10.0, a, 6, 3.0, 3.0)),
        )
    )
    found = history.jobs[a]
    assert [(r.step, r.val_loss) for r in found.reports] == [(2, 5.0), (4, 4.0), (6, 3.0)]
    assert found.residencies == (Residency(G0, 1.0, 5.0, None), Residency(G0, 8.0, 10.0, None))
    assert history.executors == (
        ExecutorSpan(T, (G0,), 1.0, 5.0),
        ExecutorSpan(T, (G0,), 8.0, 10.0),
    )


def test_a_stop_that_an_executor_did_not_live_to_carry_out() -> None:
    history = follow(
        log_of(
            ARRIVED,
            entry(up(1.0), launch("a")),
            entry(
                LossReported(2.0, JobId("a"), 2, 5.0, 5.0), Stop(JobId("a"), ExitReason.OVERFITTED)
            ),
            entry(ExecutorDown(3.0, T)),
        )
    )
    found = history.jobs[JobId("a")]
    assert (found.outcome, found.reason) == (Outcome.STOPPED, ExitReason.OVERFITTED)
    assert found.residencies == (Residency(G0, 1.0, 3.0, None),)


def test_an_executor_on_two_gpus_and_another_that_never_came_up() -> None:
    history = follow(
        log_of(
            entry(TaskArrived(0.0, task("t", [job("a"), job("b")], 2)), StartExecutor(T, (G1, G0))),
            entry(TaskArrived(1.0, task("u", [job("c")]))),
            entry(up(2.0), launch("a", gpu=1), launch("b")),
            entry(JobLeft(4.0, JobId("b"), Departure.FINISHED)),
            entry(JobLeft(5.0, JobId("a"), Departure.FINISHED), StopExecutor(T)),
            entry(ExecutorDown(6.0, T), StartExecutor(TaskId("u"), (G0,))),
            num_gpus=2,
        )
    )
    assert history.executors == (ExecutorSpan(T, (G1, G0), 2.0, 6.0),)
    assert history.jobs[JobId("a")].residencies == (Residency(G1, 2.0, 5.0, Departure.FINISHED),)
    assert history.jobs[JobId("b")].residencies == (Residency(G0, 2.0, 4.0, Departure.FINISHED),)
    assert history.jobs[JobId("a")].steps == 10  # it finished, though it never reported
    assert history.jobs[JobId("c")].outcome is Outcome.QUEUED
    assert history.arrivals == {"t": 0.0, "u": 1.0}


def test_a_stop_that_is_on_its_way_has_saved_nothing_yet() -> None:
    a = JobId("a")
    log = log_of(
        ARRIVED,
        entry(up(1.0), launch("a")),
        entry(LossReported(2.0, a, 2, 5.0, 5.0), Stop(a, ExitReason.OVERFITTED)),
    )
    assert follow(log).jobs[a].outcome is Outcome.RUNNING
    assert measure(follow(log)).overall.samples_saved == 0
    told = log_of(*log.entries, entry(JobLeft(3.0, a, Departure.STOPPED)))
    assert measure(follow(told)).overall.saved_by_rule[ExitReason.OVERFITTED] == 2 * (10 - 2)


@pytest.mark.parametrize("log", [RunLog(None, ()), log_of()], ids=["nothing", "a header"])
def test_a_log_without_events(log: RunLog) -> None:
    history = follow(log)
    assert (history.tasks, history.jobs, history.executors, history.end) == ((), {}, (), 0.0)


@pytest.mark.parametrize(
    ("log", "what"),
    [
        pytest.param(
            log_of(ARRIVED, entry(LossReported(1.0, JobId("a"), 2, 1.0, 1.0))),
            "run log: entry 2: LossReported: job a is queued",
            id="a report of a job that was not launched",
        ),
        pytest.param(
            log_of(ARRIVED, entry(up(1.0), launch("a")), entry(up(2.0))),
            "run log: entry 3: ExecutorUp: the executor of task t is up",
            id="an executor that comes up twice",
        ),
        pytest.param(
            log_of(ARRIVED, ARRIVED),
            "run log: entry 2: TaskArrived: task t has arrived before",
            id="a task that arrives twice",
        ),
        pytest.param(
            log_of(ARRIVED, entry(up(1.0, capacity=1), launch("a"))),
            "run log: entry 2: Launch(task='t', gpu=0, jobs=('a',)): no room beside []",
            id="a launch where there is no room",
        ),
        pytest.param(
            RunLog(None, (ARRIVED,)),
            "run log: entry 1: StartExecutor(task='t', gpus=(0,)): there is no GPU 0",
            id="a GPU that the header does not have",
        ),
    ],
)
def test_what_cannot_have_happened(log: RunLog, what: str) -> None:
    with pytest.raises(UserError) as caught:
        follow(log)
    assert str(caught.value) == what
