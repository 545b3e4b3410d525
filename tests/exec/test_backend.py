"""How decisions are carried out when memory runs out on the way back from a kill."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from alto_exec.backend import ExecBackend
from alto_exec.events.past import Past
from alto_exec.executor import Report
from alto_policy.decisions import ExitReason, Pause, StartExecutor, Stop
from alto_policy.events import Departure, Event, ExecutorUp, JobLeft
from alto_policy.memory import MemoryModel
from alto_policy.types import GpuId, Hyperparameters, Job, JobId, Task, TaskId
from alto_runs.files.directory import RunDirectory

JOBS = tuple(
    Job(id=JobId(name), hyperparameters=Hyperparameters(), steps=8, reports=4)
    for name in ("gone", "first", "second")
)
TASK = Task(id=TaskId("t"), jobs=JOBS, backbone="tiny", max_length=8)
MEMORY = MemoryModel(capacity=100, fixed=0, per_rank=1, per_token=1)


class Host:
    """Has room for one job on its way back beside so many others."""

    keeper: Any = None
    tokens_trained = 0

    def __init__(self, room: int) -> None:
        self.residents: list[JobId] = [job.id for job in JOBS[1:]]
        self.reached: list[tuple[JobId, int]] = []
        self.secured: list[JobId] = []
        self._room = room

    def expect(self, jobs: Sequence[Job]) -> None: ...
    def launch(self, job: Job, place: int = 0) -> Report | None: ...
    def resume_all(self) -> list[tuple[JobId, Departure]]:
        return []

    def advance(self) -> list[Report]:
        return []

    def forget(self, job: JobId) -> None: ...
    def leave(self, job: JobId, *, keep: bool) -> None:
        self.residents.remove(job)

    def reach(self, targets: Sequence[tuple[Job, int]]) -> None:
        if len(self.residents) > self._room:
            raise torch.OutOfMemoryError
        self.reached += [(job.id, step) for job, step in targets]

    def secure(self, jobs: Sequence[Job]) -> None:
        self.secured += [job.id for job in jobs]

    def evict(self) -> JobId:
        return self.residents.pop()


def backend_with(host: Host, folder: Path) -> ExecBackend:
    """Resumed where the log knows of a report of the first job."""

    class NobodyComes:
        def take(self) -> None: ...

    past = Past(tasks=(TASK,), reported=((JOBS[0].id, 4),))
    directory = RunDirectory.create(folder)
    backend = ExecBackend(NobodyComes(), lambda _: (host, MEMORY), lambda _: directory, past)
    backend.execute(StartExecutor(TASK.id, (GpuId(0),)))
    assert isinstance(backend.next_event(), ExecutorUp)
    return backend


def departures(backend: ExecBackend, host: Host) -> list[tuple[JobId, Departure]]:
    host.residents.clear()
    told: list[Event] = list(iter(backend.next_event, None))
    return [(event.job, event.how) for event in told if isinstance(event, JobLeft)]


@pytest.mark.parametrize("room", [0, 1, 2])
def test_others_make_room_for_a_job_that_is_to_stop(room: int, tmp_path: Path) -> None:
    """One of them was to pause: it has left by then, and is not asked to again."""
    host = Host(room)
    backend = backend_with(host, tmp_path / "run")
    decisions = (Stop(JOBS[0].id, ExitReason.UNDERPERFORMED), Pause(JOBS[2].id))
    backend.prepare(decisions)
    assert host.reached == [(JOBS[0].id, 4)]
    assert host.secured == [JOBS[0].id]
    for decision in decisions:
        backend.execute(decision)
    evicted = [(job.id, Departure.EVICTED) for job in reversed(JOBS[1 + room :])]
    paused = [(JOBS[2].id, Departure.PAUSED)] * (room == 2)
    assert departures(backend, host) == evicted + paused


def test_a_job_that_has_no_room_alone_is_an_error(tmp_path: Path) -> None:
    backend = backend_with(Host(-1), tmp_path / "run")
    with pytest.raises(torch.OutOfMemoryError):
        backend.prepare((Stop(JOBS[0].id, ExitReason.UNDERPERFORMED),))


def test_nobody_waits_for_the_disk_where_a_job_comes_back(tmp_path: Path) -> None:
    """What is not there after a kill is trained again; of a job that is at its end it would not
    be."""

    class Keeper:
        def __init__(self) -> None:
            self.secured: list[JobId] = []

        def secure(self, jobs: Sequence[Job]) -> None:
            self.secured += [job.id for job in jobs]

    host = Host(room=1)
    host.keeper = Keeper()
    ends = [(JOBS[2].id, Departure.FINISHED)]
    host.resume_all = lambda: [ends.pop()] if ends else []  # type: ignore[method-assign]
    backend = backend_with(host, tmp_path / "run")
    backend.execute(Pause(JOBS[1].id))
    told = [event for _ in range(2) if isinstance(event := backend.next_event(), JobLeft)]
    assert [event.how for event in told] == [Departure.PAUSED, Departure.FINISHED]
    assert host.keeper.secured == [JOBS[2].id]
