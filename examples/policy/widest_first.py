"""A scheduling policy of one's own: tasks of many GPUs first, the short ones fill the gaps.

Whoever writes a policy says what makes it different; `Dispatch` does the rest: it starts executors,
packs jobs, and ends what is done. The same object decides in the simulator and on real GPUs.
"""

from collections.abc import Iterable

from alto_policy.decisions import ExitReason, Pause, Stop
from alto_policy.dispatch import Dispatch
from alto_policy.estimates import DurationEstimate
from alto_policy.types import JobId, Task
from alto_policy.view import ClusterView

__all__ = ["WidestFirst"]

_HOPELESS = 3.0  # times the best validation loss of the task


class WidestFirst(Dispatch):
    """Bin packing's rule of thumb: large pieces first, small ones into what is left."""

    keeps_order = True  # of the jobs in a task
    backfills = True  # a task that must wait holds up nobody

    def __init__(self, estimate: DurationEstimate) -> None:
        super().__init__()
        self._estimate = estimate

    def key(self, task: Task) -> float:
        """The lowest starts first: by GPUs, and the shorter of equals."""
        seconds = self._estimate(task)
        return -task.num_gpus + seconds / (1 + seconds)

    def judge(self, job: JobId, cluster: ClusterView) -> Iterable[Pause | Stop]:
        """On each report of a job: it goes if it is far behind the best of its task."""
        losses = [
            report.val_loss
            for other in cluster.task_of(job).jobs
            for report in cluster.history(other.id)
        ]
        if cluster.history(job)[-1].val_loss > _HOPELESS * min(losses):
            yield Stop(job, ExitReason.UNDERPERFORMED)
