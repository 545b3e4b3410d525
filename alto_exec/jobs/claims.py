"""Who may write what a run's jobs come to."""

from dataclasses import replace
from uuid import uuid4

from alto_policy.types import TaskId
from alto_runs.files.artifacts import LEAVE
from alto_runs.files.directory import RunDirectory, checked_name

__all__ = ["claim_folder", "claimant", "succeeding"]

_NAME, _TOKEN_BYTES = "claim", 32


def succeeding(directory: RunDirectory, task: TaskId) -> RunDirectory:
    """As the task's next executor has it. Those before write no more from now on, whatever they are
    in the middle of."""
    name = checked_name(task)
    (directory.writers / name).remove()
    writer = f"{name}/{uuid4().hex}"
    (directory.writers / writer / LEAVE).write("")
    return replace(directory, writer=writer)


def claim_folder(directory: RunDirectory) -> None:
    """For executors that come up from now on alone: a run in a store whose folder is lost goes on
    from the copy of its log, which may lack what those before have told."""
    (directory.artifacts / _NAME).write(uuid4().hex)
    directory.writers.remove()


def claimant(directory: RunDirectory) -> str:
    """Who has claimed the folder last. Executors for which it was another are not taken over."""
    try:
        return (directory.artifacts / _NAME).beginning(_TOKEN_BYTES).decode()
    except FileNotFoundError:
        return ""
