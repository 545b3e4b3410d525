"""Jobs by their best validation loss."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from alto_policy.decisions import ExitReason
from alto_policy.types import Hyperparameters, JobId, TaskId
from alto_runs.directory import RunDirectory, checked_name
from alto_runs.fields import encode_fields
from alto_runs.history import JobHistory, Outcome, RunHistory

__all__ = ["Standing", "leaderboard_json", "rank_jobs", "varying_fields"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A job's place; a loss is None before the first report, `adapter` a path in the directory."""

    job: JobId
    task: TaskId
    hyperparameters: Hyperparameters
    status: Outcome
    reason: ExitReason | None
    steps: int
    best_val_loss: float | None
    final_val_loss: float | None
    adapter: str | None


def rank_jobs(history: RunHistory, directory: RunDirectory | None = None) -> tuple[Standing, ...]:
    """Task by task, best first; ties in the order of the jobs, jobs without a finite loss last.

    A job that was stopped competes with its best report. Adapters are looked up in the directory.
    """
    if directory is not None and not directory.jobs_path.is_dir():
        for job in history.jobs:
            checked_name(job)
        directory = None  # nobody trained here: spares a look for each job
    return tuple(
        standing
        for task in history.tasks
        for standing in sorted((_standing(j, directory) for j in history.of_task(task)), key=_loss)
    )


def leaderboard_json(standings: tuple[Standing, ...]) -> str:
    """A list of flat objects, each on a line; a loss that is not finite is null."""
    if not standings:
        return "[]\n"
    distinct = dict.fromkeys(one.hyperparameters for one in standings)
    chosen = {one: encode_fields(one) for one in distinct}
    rows = (
        json.dumps(_row(standing, chosen[standing.hyperparameters]), allow_nan=False)
        for standing in standings
    )
    return "[\n" + ",\n".join(f"  {row}" for row in rows) + "\n]\n"


def varying_fields(standings: Sequence[Standing]) -> tuple[str, ...]:
    """Hyper-parameters in which the jobs differ; alpha not where it is twice the rank."""
    chosen = [standing.hyperparameters for standing in standings]
    names = [field.name for field in fields(Hyperparameters)]
    if all(one.alpha == 2 * one.rank for one in chosen):
        names.remove("alpha")
    return tuple(name for name in names if len({getattr(one, name) for one in chosen}) > 1)


def _standing(job: JobHistory, directory: RunDirectory | None) -> Standing:
    losses = [report.val_loss for report in job.reports]
    return Standing(
        job=job.spec.id,
        task=job.task,
        hyperparameters=job.spec.hyperparameters,
        status=job.outcome,
        reason=job.reason,
        steps=job.steps,
        best_val_loss=min((loss for loss in losses if math.isfinite(loss)), default=None),
        final_val_loss=losses[-1] if losses else None,
        adapter=_adapter(job.spec.id, directory),
    )


def _adapter(job: JobId, directory: RunDirectory | None) -> str | None:
    if directory is None:
        return None
    folder = directory.job_folder(job)
    if not (folder / "adapter_model.safetensors").is_file():  # written last
        return None
    return folder.relative_to(directory.path).as_posix()


def _loss(standing: Standing) -> float:
    return math.inf if standing.best_val_loss is None else standing.best_val_loss


def _row(standing: Standing, hyperparameters: Mapping[str, object]) -> dict[str, object]:
    final = standing.final_val_loss
    return {
        "job": standing.job,
        "task": standing.task,
        **hyperparameters,
        "status": standing.status,
        "reason": standing.reason,
        "steps": standing.steps,
        "best_val_loss": standing.best_val_loss,
        "final_val_loss": final if final is not None and math.isfinite(final) else None,
        "adapter": standing.adapter,
    }
