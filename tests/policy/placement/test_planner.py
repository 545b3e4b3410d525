"""The planner inside a policy: what starts on each event."""

from collections.abc import Sequence

import pytest

from alto_policy.controller import Controller
from alto_policy.decisions import Decision, StartExecutor
from alto_policy.events import Departure, ExecutorDown, ExecutorUp, TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.placement.planner import Planner
from alto_policy.placement.plans import Item, Objective, Pool
from alto_policy.policies import build
from alto_policy.policies.fifo import FifoSettings
from alto_policy.types import GpuId, Task, TaskId
from alto_policy.view import ClusterView
from alto_runs.cpsat import CpSat
from tests.policy.cases import gpus, job, left, memory, report, task

SECONDS = {"a": 10.0, "b": 4.0, "c": 30.0, "d": 5.0, "wide": 20.0}


def remaining(task: Task, cluster: ClusterView) -> float:
    """By the steps that are left of its only job."""
    spec = task.jobs[0]
    history = cluster.history(spec.id)
    return SECONDS[task.id] * (1 - (history[-1].step if history else 0) / spec.steps)


class Scene:
    """A cluster of two GPUs or more, told events by hand."""

    def __init__(self, planner: Planner, num_gpus: int = 2) -> None:
        policy = build(FifoSettings(), place=planner)
        self._controller = Controller(policy, Cluster(gpus(num_gpus)))
        self._now = 0.0

    def arrive(self, name: str, width: int = 1) -> list[str]:
        arrived = task(name, [job(f"{name}0")], width)
        return started(self._controller.handle(TaskArrived(self._now, arrived)))

    def come_up(self, name: str) -> None:
        self._controller.handle(ExecutorUp(self._now, TaskId(name), memory(9)))

    def end(self, name: str) -> list[str]:
        self._controller.handle(left(f"{name}0", Departure.FINISHED))
        return started(self._controller.handle(ExecutorDown(self._now, TaskId(name))))

    def fail(self, name: str) -> list[str]:
        return started(self._controller.handle(ExecutorDown(self._now, TaskId(name))))

    def report(self, name: str, step: int) -> None:
        self._controller.handle(report(f"{name}0", step, 1.0))


def started(decisions: Sequence[Decision]) -> list[str]:
    return [str(d.task) for d in decisions if isinstance(d, StartExecutor)]


def test_the_longest_of_those_that_wait_comes_first() -> None:
    scene = Scene(Planner(remaining))
    assert scene.arrive("a", 2) == ["a"]
    assert [scene.arrive(name) for name in ("b", "c", "d")] == [[], [], []]
    scene.come_up("a")
    assert scene.end("a") == ["c", "d"]
    scene.come_up("d")
    assert scene.end("d") == ["b"]


def test_for_the_mean_the_smallest_comes_first() -> None:
    scene = Scene(Planner(remaining, objective=Objective.MEAN_COMPLETION))
    scene.arrive("a", 2)
    for name in ("c", "b", "d"):
        scene.arrive(name)
    scene.come_up("a")
    assert scene.end("a") == ["b", "d"]


def test_an_executor_that_failed_is_planned_again() -> None:
    scene = Scene(Planner(remaining))
    scene.arrive("a")
    scene.come_up("a")
    assert scene.fail("a") == ["a"]


@pytest.mark.parametrize(("step", "expected"), [(0, ["d"]), (16, [])])
def test_progress_shortens_what_runs_and_with_it_a_reservation(
    step: int, expected: list[str]
) -> None:
    """`a` has 10 s in all; `d` would take 5 s of the time that `wide` waits for it."""
    scene = Scene(Planner(remaining, reserve=True))
    scene.arrive("a")
    scene.come_up("a")
    scene.report("a", step) if step else None
    scene_wide = scene.arrive("wide", 2)
    assert scene_wide == []
    assert scene.arrive("d") == expected


def test_an_improver_has_the_last_word_on_the_order() -> None:
    seen: list[tuple[int, Pool]] = []

    class Backwards(CpSat):
        def __call__(
            self, items: Sequence[Item], pool: Pool, order: Sequence[int]
        ) -> tuple[int, ...]:
            seen.append((len(items), pool))
            return tuple(order[::-1])

    scene = Scene(Planner(remaining, improver=Backwards()))
    scene.arrive("a", 2)
    for name in ("b", "c", "d"):
        scene.arrive(name)
    scene.come_up("a")
    assert scene.end("a") == ["b", "d"]
    assert seen == [(1, Pool(2)), (3, Pool(2))]


def test_a_policy_names_gpus_for_what_the_planner_starts() -> None:
    controller = Controller(build(FifoSettings(), place=Planner(remaining)), Cluster(gpus(3)))
    decided = controller.handle(TaskArrived(0.0, task("a", [job("a0")], 2)))
    assert decided == (StartExecutor(TaskId("a"), (GpuId(0), GpuId(1))),)


def test_what_is_believed_of_a_task_is_worked_out_as_it_begins_to_wait() -> None:
    asked: list[str] = []

    def believed(task: Task, cluster: ClusterView) -> float:
        asked.append(task.id)
        return SECONDS[task.id]

    scene = Scene(Planner(believed))
    scene.arrive("a", 2)
    assert scene.arrive("b") == scene.arrive("c") == []
    assert asked == ["a", "b", "c"]  # before any GPU is free
    scene.come_up("a")
    assert scene.end("a") == ["c", "b"]
    assert asked == ["a", "b", "c"]
