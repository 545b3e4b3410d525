"""Who trains when, on a clock whose passes take one second."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from alto_policy.decisions import Decision, ExitReason, Launch, Pause, Stop, StopExecutor, WakeAt
from alto_policy.types import GpuId, Job, JobId, Task, TaskId
from alto_sim.machines.latencies import Latencies
from alto_sim.times.step_time import StepTime
from tests.sim.cases import NOW, SECOND, Flat, job, news, sim

T = TaskId("t")
Script = dict[str, list[Decision]]
PAIR = (job("a", 8, 4), job("b", 9, 1))
SHORT = (job("a", 4, 1), job("b", 4, 1))


def launch(name: str) -> Launch:
    return Launch(T, GpuId(0), (JobId(name),))


def pause(name: str) -> Pause:
    return Pause(JobId(name))


def stop(name: str) -> Stop:
    return Stop(JobId(name), ExitReason.CANCELLED)


def test_residents_share_each_pass() -> None:
    assert news(sim([job("a", 4, 2), job("b", 3, 1)])) == [
        (2.0, "a@2"),
        (3.0, "b@3"),
        (3.0, "b finished"),
        (4.0, "a@4"),
        (4.0, "a finished"),
    ]


def test_accumulation_takes_passes() -> None:
    assert news(sim([job("a", 2, 2, accumulation=3), job("b", 4, 2)]))[:3] == [
        (2.0, "b@2"),
        (3.0, "a@1"),
        (4.0, "b@4"),
    ]


def test_a_pass_is_as_long_as_its_tokens() -> None:
    step_time = StepTime(per_pass=1.0, per_token=0.5, per_evaluation=0.0)
    jobs = [job("a", 2, 1, batch_size=2), job("b", 4, 1, batch_size=4)]
    assert news(sim(jobs, step_time=step_time)) == [
        (8.0, "a@2"),
        (8.0, "a finished"),
        (14.0, "b@4"),
        (14.0, "b finished"),
    ]


def test_evaluation_holds_up_the_gpu() -> None:
    step_time = StepTime(per_pass=1.0, per_token=0.0, per_evaluation=5.0)
    assert news(sim([job("a", 2, 1), job("b", 4, 1)], step_time=step_time)) == [
        (7.0, "a@2"),
        (7.0, "a finished"),
        (14.0, "b@4"),
        (14.0, "b finished"),
    ]


def test_jobs_that_report_together_are_evaluated_together() -> None:
    step_time = StepTime(per_pass=1.0, per_token=0.0, per_evaluation=5.0)
    found = news(sim([job("a", 4, 2), job("b", 4, 2)], step_time=step_time))
    assert [what for what in found if "@" in what[1]] == [
        (12.0, "a@2"),
        (12.0, "b@2"),
        (24.0, "a@4"),
        (24.0, "b@4"),
    ]


def test_a_job_waits_for_decisions_while_others_train() -> None:
    found = news(sim([job("a", 4, 2), job("b", 9, 1)], latencies=replace(NOW, report=2.5)))
    assert found == [
        (4.5, "a@2"),  # told 2.5 s after it was due, and back in at the next pass
        (9.5, "a@4"),
        (9.5, "a finished"),
        (11.5, "b@9"),
        (11.5, "b finished"),
    ]


def test_a_lone_job_begins_a_pass_as_soon_as_its_decisions_are_back() -> None:
    found = news(sim([job("a", 4, 2)], latencies=replace(NOW, report=2.5)), launched="a")
    assert found[:2] == [(4.5, "a@2"), (9.0, "a@4")]


@pytest.mark.parametrize(
    ("latencies", "answer", "expected"),
    [
        pytest.param(NOW, pause("a"), (2.0, "a paused"), id="paused at once"),
        pytest.param(NOW, stop("a"), (2.0, "a stopped"), id="stopped at once"),
        pytest.param(replace(NOW, pause=0.25), pause("a"), (2.25, "a paused"), id="late"),
        pytest.param(replace(NOW, stop=7.0), stop("a"), (9.0, "a stopped"), id="very late"),
    ],
)
def test_a_job_told_to_go_on_its_report_does_not_train_past_it(
    latencies: Latencies, answer: Decision, expected: tuple[float, str]
) -> None:
    found = news(sim([job("a", 8, 4), job("b", 6, 1)], latencies=latencies), {"a@2": [answer]})
    about_a = [what for what in found if what[1].startswith("a")]
    assert about_a == [(2.0, "a@2"), expected]
    assert (6.0, "b@6") in found


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(pause("b"), (3.0, "b paused"), id="paused"),
        pytest.param(stop("b"), (3.0, "b stopped"), id="stopped"),
    ],
)
def test_a_job_that_is_training_leaves_when_its_pass_is_over(
    answer: Decision, expected: tuple[float, str]
) -> None:
    found = news(
        sim(PAIR, latencies=replace(NOW, pause=0.5, stop=0.5)),
        {"a@2": [answer]},
    )
    assert found[:2] == [(2.0, "a@2"), expected]


def test_a_job_may_finish_before_it_hears_the_stop() -> None:
    jobs = [job("a", 8, 4), job("b", 3, 1)]
    found = news(sim(jobs, latencies=replace(NOW, stop=1.5)), {"a@2": [stop("b")]})
    assert found[1:3] == [(3.0, "b@3"), (3.0, "b finished")]


def test_a_leaving_job_may_still_report() -> None:
    jobs = [job("a", 8, 4), job("b", 9, 3)]
    found = news(sim(jobs, latencies=replace(NOW, stop=1.5, report=0.25)), {"a@2": [stop("b")]})
    about_b = [what for what in found if what[1].startswith("b")]
    assert about_b == [(3.25, "b@3"), (3.75, "b stopped")]


def test_a_stop_overtakes_a_pause() -> None:
    script: Script = {"a@2": [pause("b"), stop("b")]}
    found = news(sim(PAIR, latencies=replace(NOW, pause=0.5, stop=3)), script)
    assert [what for what in found if what[1].startswith("b")] == [(3.0, "b stopped")]


def test_a_launch_on_its_way_is_void_once_the_job_has_left() -> None:
    script: Script = {"t up": [pause("b")], "b paused": [launch("b")]}
    found = news(
        sim([job("a", 4, 1), job("b", 4, 1)], latencies=replace(NOW, launch=5, pause=1)), script
    )
    assert found == [
        (1.0, "b paused"),
        (9.0, "a@4"),
        (9.0, "a finished"),
        (10.0, "b@4"),  # from its second launch on
        (10.0, "b finished"),
    ]


def test_a_job_may_have_paused_before_it_hears_the_stop() -> None:
    """Both learn of the pause at the same moment; the stop is decided before the job's farewell."""
    script: Script = {"a@2": [pause("b")], "a@4": [stop("b")]}
    jobs = [job("a", 6, 3), job("b", 9, 1)]
    found = news(sim(jobs, latencies=replace(NOW, pause=1.5)), script)
    assert (4.0, "b paused") in found
    assert [what for _, what in found if what.startswith("b")] == ["b paused"]


def test_a_paused_job_goes_on_where_it_was() -> None:
    script: Script = {"a@3": [pause("a")], "b finished": [launch("a")]}
    assert news(sim([job("a", 5, 2), job("b", 4, 1)]), script) == [
        (3.0, "a@3"),
        (3.0, "a paused"),
        (4.0, "b@4"),
        (4.0, "b finished"),
        (6.0, "a@5"),
        (6.0, "a finished"),
    ]


def test_a_job_that_paused_on_its_last_report_ends_when_it_is_launched_again() -> None:
    script: Script = {"a@4": [pause("a")], "b finished": [launch("a")]}
    found = news(sim([job("a", 4, 2), job("b", 6, 1)]), script)
    assert [what for what in found if what[1].startswith("a")] == [
        (2.0, "a@2"),
        (4.0, "a@4"),
        (4.0, "a paused"),
        (6.0, "a finished"),
    ]


def test_a_newcomer_joins_between_passes() -> None:
    script: Script = {"a@2": [launch("c")]}
    jobs = [job("a", 8, 4), job("b", 9, 1), job("c", 1, 1)]
    found = news(sim(jobs, latencies=replace(NOW, launch=0.25)), script)
    assert found[:4] == [(2.25, "a@2"), (4.25, "a@4"), (4.25, "c@1"), (4.25, "c finished")]


def test_a_job_told_to_go_before_it_has_joined_leaves_untrained() -> None:
    script: Script = {"t up": [stop("b")]}
    found = news(
        sim([job("a", 4, 1), job("b", 4, 1)], latencies=replace(NOW, launch=5, stop=1)), script
    )
    assert found[0] == (1.0, "b stopped")
    assert [what for _, what in found].count("b@4") == 0


@pytest.mark.parametrize("answer", [stop("b")])
def test_a_job_without_memory_has_nobody_to_hear_a_stop(answer: Decision) -> None:
    found = news(sim([job("a", 4, 2), job("b", 4, 1)]), {"a@2": [answer]}, launched="a")
    assert [what for _, what in found] == ["a@2", "a@4", "a finished"]


@pytest.mark.parametrize(
    ("script", "how"),
    [({}, "failed"), ({"a@3": [stop("a")]}, "stopped")],
    ids=["nobody stops it", "stopped"],
)
def test_a_breakdown_is_reported_at_once(script: Script, how: str) -> None:
    curves = Flat(broken=(("a", 3),))
    found = news(sim([job("a", 8, 2), job("b", 8, 1)], curves=curves), script)
    assert found[:2] == [(3.0, "a@3"), (3.0, f"a {how}")]
    assert found[-1] == (8.0, "b finished")


def test_executors_and_timers_take_their_time() -> None:
    script: Script = {"t up": [WakeAt(9.0), WakeAt(1.0)], "a finished": [StopExecutor(T)]}
    backend = sim([job("a", 2, 1)], latencies=replace(NOW, start=3, stop=2))
    assert news(backend, script, launched="a") == [
        (3.0, "timer"),  # it was asked for too late
        (5.0, "a@2"),
        (5.0, "a finished"),
        (7.0, "t down"),
        (9.0, "timer"),
    ]


def test_a_late_start_moves_all() -> None:
    assert news(sim([job("a", 2, 1)], latencies=replace(NOW, start=3)), launched="a")[0] == (
        5.0,
        "a@2",
    )


@pytest.mark.parametrize(
    ("seconds", "message"),
    [({"start": -1.0}, "start must be at least 0 seconds"), ({"stop": float("inf")}, "stop must")],
)
def test_latencies_are_times(seconds: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(NOW, **seconds)


@pytest.mark.parametrize(("per_pass", "message"), [(-1.0, "negative"), (0.0, "must take time")])
def test_a_pass_takes_time(per_pass: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepTime(per_pass=per_pass, per_token=0.0, per_evaluation=SECOND.per_evaluation)


def test_jobs_that_report_together_come_back_into_one_pass() -> None:
    """It is formed once, after the last of their reports, and each report finds its own answer."""
    asked: list[int] = []

    class Counted(StepTime):
        def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float:
            here = list(jobs)
            asked.append(len(here))
            return super().pass_seconds(here, task)

    times = Counted(per_pass=1.0, per_token=0.0, per_evaluation=0.5)
    backend = sim([job(name, 4, 2) for name in "abc"], step_time=times)
    told = [what for _, what in news(backend, {"a@2": [pause("a")]}, "abc")]
    assert asked == [3, 2]
    assert told[:6] == ["a@2", "a paused", "b@2", "c@2", "b@4", "b finished"]
