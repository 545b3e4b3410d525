"""Tasks that come, and are cancelled, while others train."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from alto_exec.backend import ExecBackend, StartedExecutor
from alto_exec.events.inbox import Cancellation, Request, Submission
from alto_exec.events.past import Past
from alto_exec.executor import Executor
from alto_exec.host.machine import settle
from alto_exec.preparation import bank_of, prepare
from alto_policy.controller import Controller, run
from alto_policy.decisions import ExitReason
from alto_policy.events import ExecutorDown, ExecutorUp, LossReported, TaskArrived, TaskCancelled
from alto_policy.ledger.cluster import Cluster, Status
from alto_policy.policies import build
from alto_policy.runlog import Entry
from alto_policy.types import Gpu, GpuId, JobId, Task, TaskId
from alto_runs.files.directory import RunDirectory
from alto_runs.study import Study
from tests.tune.small_study import small_study

Script = Callable[[Sequence[Entry]], Sequence[Request] | None]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = small_study(tmp_path_factory.mktemp("inbox"))
    (spec,) = study.tasks.values()
    few = spec.model_copy(update={"search": None, "jobs": spec.configurations[4:6]})
    tasks = {"one": few, "two": few, "three": few}
    return study.model_copy(update={"tasks": tasks, "executor": settle(study.executor)})


class Scripted:
    """Answers each look into it by what has been logged so far."""

    def __init__(self, script: Script, entries: Sequence[Entry]) -> None:
        self._script, self._entries = script, entries

    def take(self) -> Sequence[Request] | None:
        return self._script(self._entries)


def trained(
    study: Study, folder: Path, script: Script, broken: Sequence[str] = ()
) -> tuple[list[Entry], Cluster]:
    by_id = {one.task.id: one for one in prepare(study)}
    directory = RunDirectory.create(folder)

    def start(task: Task) -> StartedExecutor | None:
        if task.id in broken:
            return None
        backbone = by_id[task.id].load(study.executor)
        bank = bank_of(backbone, study.executor)
        executor = Executor(backbone, by_id[task.id].dataset, directory, bank=bank)
        return executor, by_id[task.id].memory(backbone, bank, study.executor)

    entries = list[Entry]()
    cluster = Cluster((Gpu(id=GpuId(0), kind="cpu"),))
    backend = ExecBackend(Scripted(script, entries), start, lambda _: directory, Past())
    run(Controller(build(study.policy), cluster, entries.append), backend)
    assert not list((folder / "checkpoints").iterdir())
    return entries, cluster


def tasks_of(study: Study) -> dict[str, Task]:
    return {one.task.id: one.task for one in prepare(study)}


def has(entries: Sequence[Entry], kind: type) -> bool:
    return any(isinstance(entry.event, kind) for entry in entries)


def test_a_task_comes_while_another_trains_and_after_it(study: Study, tmp_path: Path) -> None:
    tasks = tasks_of(study)
    coming: list[tuple[Callable[[Sequence[Entry]], bool], Task]] = [
        (lambda seen: True, tasks["one"]),
        (lambda seen: has(seen, LossReported), tasks["two"]),
        (lambda seen: sum(isinstance(e.event, ExecutorDown) for e in seen) == 2, tasks["three"]),
    ]

    def script(seen: Sequence[Entry]) -> Sequence[Request] | None:
        if not coming:
            return None
        is_due, task = coming[0]
        if not is_due(seen):
            return []
        coming.pop(0)
        return [Submission(task)]

    entries, cluster = trained(study, tmp_path / "run", script)
    assert [e.event.task.id for e in entries if isinstance(e.event, TaskArrived)] == list(tasks)
    alone, _ = trained(
        study, tmp_path / "alone", lambda seen: None if seen else [Submission(tasks["two"])]
    )
    of_two = {job.id for job in tasks["two"].jobs}
    assert reports(entries, of_two) == reports(alone, of_two) != []
    assert all(cluster.status(j.id) is Status.ENDED for task in tasks.values() for j in task.jobs)


def reports(entries: Sequence[Entry], jobs: set[JobId]) -> list[LossReported]:
    events = (e.event for e in entries if isinstance(e.event, LossReported))
    return [replace(event, t=0.0) for event in events if event.job in jobs]


def test_a_task_is_cancelled_while_it_trains_and_while_it_waits(
    study: Study, tmp_path: Path
) -> None:
    tasks = tasks_of(study)
    asked = [Submission(task) for task in tasks.values()]
    cancels = [Cancellation(TaskId("one")), Cancellation(TaskId("three"))]

    def script(seen: Sequence[Entry]) -> Sequence[Request] | None:
        if not seen:
            return asked
        if not has(seen, LossReported):
            return []
        return [cancels.pop(0)] if cancels else None

    entries, cluster = trained(study, tmp_path / "run", script)
    reasons = {name: {cluster.reason(job.id) for job in task.jobs} for name, task in tasks.items()}
    assert reasons["one"] == reasons["three"] == {ExitReason.CANCELLED}
    assert ExitReason.CANCELLED not in reasons["two"]
    assert [e.event.task for e in entries if isinstance(e.event, ExecutorUp)] == ["one", "two"]


def test_an_executor_that_cannot_start_costs_its_task_alone(study: Study, tmp_path: Path) -> None:
    tasks = tasks_of(study)

    def script(seen: Sequence[Entry]) -> Sequence[Request] | None:
        return None if seen else [Submission(tasks["one"]), Submission(tasks["two"])]

    entries, cluster = trained(study, tmp_path / "run", script, broken=["one"])
    assert [e.event.task for e in entries if isinstance(e.event, TaskCancelled)] == ["one"]
    assert all(cluster.reason(job.id) is ExitReason.CANCELLED for job in tasks["one"].jobs)
    assert all(cluster.history(job.id) for job in tasks["two"].jobs)
