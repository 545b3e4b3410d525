"""Files of an executor's jobs, written beside training."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from alto_policy.types import JobId
from alto_runs.files.artifacts import BarredError

__all__ = ["Writes"]

log = logging.getLogger(__name__)


class Writes:
    """Of one kind: those of a job one after another, of several jobs side by side."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._last: dict[JobId, Future[None]] = {}  # of each job

    def last(self, job: JobId) -> Future[None] | None:
        return self._last.get(job)

    @property
    def num_under_way(self) -> int:
        return sum(not each.done() for each in self._last.values())

    def begin(
        self, job: JobId, write: Callable[[], None], behind: Future[None] | None = None
    ) -> None:
        """Once the device has come to where it is asked to go now, behind the job's last write and
        another one."""
        before, copied = (behind, self._last.get(job)), _reached()

        def run() -> None:
            for each in before:
                if each is not None:
                    each.result()
            copied()
            try:
                write()
            except BarredError:
                log.warning("%s: its task has another executor, and nothing is written here", job)

        self._last[job] = self._pool.submit(run)

    def settle(self, job: JobId) -> None:
        """Wait for what was begun of the job. Raises what went wrong with it."""
        if (last := self._last.pop(job, None)) is not None:
            last.result()

    def leave_out(self, job: JobId) -> bool:
        """Whether nothing of the job is under way now: what nobody has begun to write is not."""
        last = self._last.get(job)
        if last is not None and last.cancel():
            del self._last[job]
        return job not in self._last

    def close(self) -> None:
        """Wait for all that was begun."""
        for job in tuple(self._last):
            self.settle(job)
        self._pool.shutdown()


def _reached() -> Callable[[], None]:
    """Waits until the device has come to where it is asked to go now."""
    if not torch.cuda.is_available():
        return lambda: None
    event = torch.cuda.Event()
    event.record()
    return event.synchronize
