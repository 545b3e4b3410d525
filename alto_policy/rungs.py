"""Comparing jobs at equal fractions of their own samples."""

import math
from collections.abc import Collection, Sequence

from alto_policy.events import LossReported
from alto_policy.types import Job, JobId
from alto_policy.view import ClusterView, Status

__all__ = ["fraction_trained", "has_reached", "loss_at", "rungs_from", "waits_at", "worst"]


def fraction_trained(report: LossReported, spec: Job) -> float:
    """Share of the job's own samples that it had seen; division makes 7/100 equal 0.07."""
    return report.step / spec.steps


def has_reached(history: Sequence[LossReported], spec: Job, rung: float) -> bool:
    return len(history) > 0 and fraction_trained(history[-1], spec) >= rung


def loss_at(history: Sequence[LossReported], spec: Job, rung: float) -> float:
    """Validation loss of the first report at or after the rung; infinite if it is not a number."""
    reports = (report for report in history if fraction_trained(report, spec) >= rung)
    loss = next(reports).val_loss
    return math.inf if math.isnan(loss) else loss


def waits_at(job: JobId, rung: float, cluster: ClusterView) -> bool:
    """Whether the job is paused at the rung, with training still to do.

    One that was interrupted after its last report only has to be launched again to finish.
    """
    if cluster.status(job) is not Status.PAUSED:
        return False
    history, spec = cluster.history(job), cluster.spec(job)
    return has_reached(history, spec, rung) and history[-1].step < spec.steps


def worst(jobs: Collection[JobId], rung: float, kept: int, cluster: ClusterView) -> list[JobId]:
    """All but the `kept` jobs of least loss at the rung; of equals the earlier one is kept."""
    ranked = sorted(jobs, key=lambda job: loss_at(cluster.history(job), cluster.spec(job), rung))
    return ranked[kept:]


def rungs_from(grace: float, eta: float) -> tuple[float, ...]:
    """grace, grace * eta, grace * eta^2 and so on, below the whole."""
    rungs: list[float] = []
    while grace < 1:
        rungs.append(grace)
        grace *= eta
    return tuple(rungs)
