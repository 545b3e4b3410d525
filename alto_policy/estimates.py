"""How long a policy believes that a task takes. What it really takes, nobody tells the policy."""

from collections.abc import Callable

from alto_policy.types import Task

__all__ = ["DurationEstimate", "declared_seconds"]

DurationEstimate = Callable[[Task], float]  # seconds on the task's own GPUs, never interrupted


def declared_seconds(task: Task) -> float:
    """What the task says of itself: a second for each pass of a job, one job on a GPU at a time."""
    passes = 0
    for job in task.jobs:
        passes += job.steps * job.hyperparameters.accumulation
    return passes / min(task.num_gpus, len(task.jobs))
