"""Adds up what an executor does and how long that takes."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from alto_exec.jobs.residence import Resident
from alto_policy.types import JobId, TaskId
from alto_runs.files.executor_work import EvaluationWork, LaunchWork, TrainingWork, Work

__all__ = ["Meter"]


@dataclass(slots=True)
class _Passes:
    jobs: tuple[JobId, ...]
    ranks: int
    passes: int = 0
    tokens: int = 0
    seconds: float = 0.0
    replayed: int = 0
    replayed_rows: int = 0
    recorded: int = 0
    travelled: int = 0


class Meter:
    """Tells one row for all passes of the same jobs in a row, and for all launches."""

    def __init__(
        self,
        task: TaskId,
        tell: Callable[[Work], None],
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        """When `settle` is done, all that was told is where it is kept."""
        self._task = task
        self._tell = tell
        self.settle = settle
        self._passes: _Passes | None = None
        self._launches = (0, 0.0)  # jobs and seconds
        self._reported: set[JobId] = set()

    def trained(
        self,
        residents: Sequence[Resident],
        tokens: int,
        seconds: float,
        *,
        replayed_rows: int = 0,
        recorded: int = 0,
        travelled: int = 0,
    ) -> None:
        """One pass; it is over when its losses are known. A replay computed so many rows; 1 or 0 of
        it was recorded, and in as many tokens have travelled."""
        jobs = tuple(resident.job.id for resident in residents)
        if self._passes is None or self._passes.jobs != jobs or self._launches[0]:
            self._flush()
            self._passes = _Passes(jobs, sum(r.slot.rank for r in residents))
        self._passes.passes += 1
        self._passes.tokens += tokens
        self._passes.seconds += seconds
        self._passes.replayed += replayed_rows > 0
        self._passes.replayed_rows += replayed_rows
        self._passes.recorded += recorded
        self._passes.travelled += travelled

    @contextmanager
    def evaluation(self, jobs: Sequence[JobId], tokens: int) -> Iterator[None]:
        """Times what is done within: reports of these jobs, on so many tokens together."""
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        self._flush()
        new = set(jobs) - self._reported
        self._reported |= new
        self._tell(
            EvaluationWork(
                task=self._task,
                jobs=len(jobs),
                first_reports=len(new),
                tokens=tokens,
                seconds=seconds,
            )
        )

    @contextmanager
    def launch(self) -> Iterator[None]:
        """Times what is done within: one job gets its place."""
        start = time.monotonic()
        yield
        jobs, seconds = self._launches
        self._launches = jobs + 1, seconds + time.monotonic() - start

    def _flush(self) -> None:
        if self._passes is not None:
            done, self._passes = self._passes, None
            self._tell(
                TrainingWork(
                    task=self._task,
                    jobs=len(done.jobs),
                    ranks=done.ranks,
                    passes=done.passes,
                    tokens=done.tokens,
                    seconds=done.seconds,
                    replayed=done.replayed,
                    replayed_rows=done.replayed_rows,
                    recorded=done.recorded,
                    travelled=done.travelled,
                )
            )
        jobs, seconds = self._launches
        if jobs:
            self._launches = (0, 0.0)
            self._tell(LaunchWork(task=self._task, jobs=jobs, seconds=seconds))
