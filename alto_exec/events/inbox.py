"""What comes to a run from outside while it goes on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from alto_policy.types import Task, TaskId

__all__ = ["Cancellation", "GivenTasks", "Inbox", "Request", "Submission"]


@dataclass(frozen=True, slots=True)
class Submission:
    task: Task


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Of a task that was submitted before."""

    task: TaskId


Request = Submission | Cancellation


class Inbox(Protocol):
    def take(self) -> Sequence[Request] | None:
        """What has come since the last call, without waiting; None if nothing will come again.

        It is asked before each pass, and many times in a second where nothing trains.
        """
        ...


class GivenTasks:
    """The inbox of a run whose tasks are known from the start."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._requests: Sequence[Request] = [Submission(task) for task in tasks]

    def take(self) -> Sequence[Request] | None:
        requests, self._requests = self._requests, ()
        return requests or None
