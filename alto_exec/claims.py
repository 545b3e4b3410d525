"""Whose executors write to the folder of a run: those of a cluster outlive a head that is killed,
for a while, and the run may go on elsewhere meanwhile."""

from collections.abc import Callable
from uuid import uuid4

from alto_policy.types import TaskId
from alto_policy.view import ClusterView
from alto_runs.directory import RunDirectory, write_atomically

__all__ = ["claim", "claimant"]

_NAME = "writer"


def claim(view: ClusterView, directory_of: Callable[[TaskId], RunDirectory]) -> None:
    """The folders of tasks that have executors, for those that come up from now on alone."""
    token = uuid4().hex
    there = [task for task in view.tasks() if view.executor(task) is not None]
    for path in dict.fromkeys(directory_of(task).path for task in there):
        write_atomically(path / _NAME, token)


def claimant(directory: RunDirectory) -> str:
    """Who has claimed the folder last. An executor for which it was another writes no more."""
    try:
        return (directory.path / _NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
