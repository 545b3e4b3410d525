"""Whose executors write to the folder of a run: those of a cluster outlive a head that is killed,
for a while, and the run may go on elsewhere meanwhile."""

from collections.abc import Callable
from uuid import uuid4

from alto_policy.types import TaskId
from alto_policy.view import ClusterView
from alto_runs.directory import RunDirectory

__all__ = ["claim", "claim_folder", "claimant"]

_NAME, _TOKEN_BYTES = "writer", 32


def claim(view: ClusterView, directory_of: Callable[[TaskId], RunDirectory]) -> None:
    """The folders of tasks that have executors, for those that come up from now on alone."""
    there = [task for task in view.tasks() if view.executor(task) is not None]
    for directory in dict.fromkeys(directory_of(task) for task in there):
        claim_folder(directory)


def claim_folder(directory: RunDirectory) -> None:
    """For executors that come up from now on alone."""
    (directory.artifacts / _NAME).write(uuid4().hex)


def claimant(directory: RunDirectory) -> str:
    """Who has claimed the folder last. An executor for which it was another writes no more."""
    try:
        return (directory.artifacts / _NAME).beginning(_TOKEN_BYTES).decode()
    except FileNotFoundError:
        return ""
