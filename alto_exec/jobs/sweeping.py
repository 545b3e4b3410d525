"""States of jobs that a run which goes on has no use for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from alto_exec.jobs.checkpoint import kept_step
from alto_policy.types import Job
from alto_policy.view import ClusterView, Status
from alto_runs.files.artifacts import StoredArtifact
from alto_runs.files.directory import RunDirectory

__all__ = ["sweep_checkpoints", "tidy"]

_OVER = (Status.ENDED, Status.STOPPING)
_READERS = 16  # at a time


def sweep_checkpoints(view: ClusterView, directory: RunDirectory) -> None:
    """Remove what a killed process still kept of jobs that had ended, or end without more of it.

    In a store also states that are further than the log, which was recovered from a copy that lacks
    its end, or has nothing of their tasks: the reports that lie between are made again.
    """
    for job in _jobs(view, is_over=True):
        directory.drop_checkpoint(job.id)
    if directory.stored_at is None or not (there := directory.checkpoints.names()):
        return
    going_on = [job for job in _jobs(view, is_over=False) if f"{job.id}.safetensors" in there]
    for name in sorted({*there} - {f"{job.id}.safetensors" for job in going_on}):
        (directory.checkpoints / name).remove()
    with ThreadPoolExecutor(_READERS) as readers:
        steps = readers.map(lambda job: kept_step(directory.checkpoint(job.id)), going_on)
        for job, step in zip(going_on, steps, strict=True):
            history = view.history(job.id)
            told = history[-1].step if history else 0
            if step > job.next_report_step(told):
                directory.checkpoint(job.id).remove()


def tidy(directory: RunDirectory) -> None:
    """All jobs have ended: nobody goes on from their states, and nobody writes."""
    directory.writers.remove()
    directory.checkpoints.remove()
    directory.meetings.remove()
    if isinstance(store := directory.artifacts, StoredArtifact):
        store.remove_partial()


def _jobs(view: ClusterView, *, is_over: bool) -> Iterator[Job]:
    for task in view.tasks().values():
        for job in task.jobs:
            if (view.status(job.id) in _OVER) == is_over:
                yield job
