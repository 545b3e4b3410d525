"""No sample is lost: trained, saved by an exit, or neither, they add up in every simulated run."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from alto_policy.decisions import ExitReason
from alto_policy.events import TaskArrived
from alto_policy.memory import MemoryModel
from alto_policy.policies import SETTINGS, Settings
from alto_policy.runlog import Entry
from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId
from alto_runs.outcomes.history import Outcome, RunHistory, follow
from alto_runs.outcomes.leaderboard import rank_jobs
from alto_runs.outcomes.metrics import TaskMetrics, measure
from alto_sim.curves.generated import GeneratedCurves
from alto_sim.machines.latencies import Latencies
from alto_sim.simulate import play
from alto_sim.times.step_time import StepTime
from alto_sim.workloads.workload import Workload
from tests.runs.cases import gpus, log_of

# A job takes as many bytes as its batch size: one of 16 does not fit.
MEMORY = MemoryModel(capacity=12, fixed=0, per_rank=0, per_token=1)
SAVING = (
    ExitReason.UNDERPERFORMED,
    ExitReason.OVERFITTED,
    ExitReason.DIVERGED,
    ExitReason.NON_FINITE,
)
HYPERPARAMETERS = st.builds(
    Hyperparameters,
    rank=st.sampled_from([4, 128]),
    learning_rate=st.sampled_from([1e-5, 2e-4, 8e-4, 1e-1]),
    batch_size=st.sampled_from([1, 2, 8, 16]),
    accumulation=st.integers(1, 2),
)
SIZES = st.integers(1, 30).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(1, steps)))


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    arrivals = []
    for name in "tu"[: draw(st.integers(1, 2))]:
        chosen = draw(st.lists(st.tuples(HYPERPARAMETERS, SIZES), min_size=1, max_size=8))
        jobs = tuple(
            Job(id=JobId(f"{name}-{i}"), hyperparameters=one, steps=steps, reports=reports)
            for i, (one, (steps, reports)) in enumerate(chosen)
        )
        num_gpus = draw(st.integers(1, 2))
        task = Task(id=TaskId(name), jobs=jobs, backbone="b", max_length=1, num_gpus=num_gpus)
        arrivals.append(TaskArrived(draw(st.floats(0, 20)), task))
    late = draw(st.sampled_from([0.0, 0.3, 3.0]))
    return Workload(
        arrivals=tuple(sorted(arrivals, key=lambda arrival: arrival.t)),
        curves=GeneratedCurves(seed=draw(st.integers(0, 3))),
        step_time=StepTime(per_pass=1.0, per_token=0.1, per_evaluation=0.5),
        latencies=Latencies(
            start=5.0, load=1.0, launch=late, checkpoint=late, report=late, pause=late, stop=late
        ),
        memory=MEMORY,
    )


def played(workload: Workload, settings: Settings) -> RunHistory:
    entries: list[Entry] = []
    play(workload, settings, gpus(2), entries.append)
    return follow(log_of(*entries, num_gpus=2, policy=settings))


def assert_conserved(measures: TaskMetrics, untrained: int) -> None:
    """`untrained` samples are of jobs that no exit has stopped."""
    trained, saved = measures.samples_trained, measures.samples_saved
    assert trained + saved + untrained == measures.samples_total
    assert saved == sum(measures.saved_by_rule.values())
    assert math.isclose(measures.saved_share * measures.samples_total, saved, abs_tol=1e-9)
    assert 0 <= measures.busy_gpu_seconds <= measures.gpu_seconds + 1e-9


@settings(max_examples=60)
@given(workload=workloads(), policy=st.sampled_from([*SETTINGS]))
def test_samples_and_seconds_add_up(workload: Workload, policy: str) -> None:
    history = played(workload, SETTINGS[policy]())
    metrics = measure(history)
    untrained = dict.fromkeys(metrics.tasks, 0)
    for job in history.jobs.values():
        assert job.outcome in (Outcome.FINISHED, Outcome.STOPPED, Outcome.FAILED)
        assert [r.step for r in job.reports] == sorted({r.step for r in job.reports})
        if job.outcome is Outcome.STOPPED and job.reason not in SAVING:
            assert job.reason is ExitReason.TOO_LARGE
            assert job.spec.hyperparameters.batch_size == 16
            untrained[job.task] += job.spec.samples(job.spec.steps)
        if job.outcome is Outcome.FAILED:  # it broke down, and no policy had stopped it
            assert not math.isfinite(job.reports[-1].train_loss)
            untrained[job.task] += job.spec.samples(job.spec.steps - job.reports[-1].step)
    for task, measures in metrics.tasks.items():
        assert_conserved(measures, untrained[task])
    assert_conserved(metrics.overall, sum(untrained.values()))
    assert metrics.overall.samples_total == sum(m.samples_total for m in metrics.tasks.values())
    assert (
        sum(metrics.overall.jobs_by_outcome.values())
        == len(history.jobs)
        == len(rank_jobs(history))
    )
    assert metrics.overall.gpu_seconds <= 2 * metrics.overall.makespan_seconds + 1e-9


@settings(max_examples=20)
@given(workload=workloads())
def test_without_exits_nothing_is_saved(workload: Workload) -> None:
    measures = measure(played(workload, SETTINGS["fifo"]())).overall
    broken = measures.saved_by_rule[ExitReason.NON_FINITE]
    assert measures.samples_saved == broken  # a job that broke down cannot go on
