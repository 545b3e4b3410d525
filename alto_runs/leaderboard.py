"""Jobs by their best validation loss."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from json.encoder import encode_basestring_ascii

from alto_policy.decisions import ExitReason
from alto_policy.frozen import quick
from alto_policy.types import Hyperparameters, JobId, TaskId
from alto_runs.directory import RunDirectory, checked_name
from alto_runs.fields import encode_fields
from alto_runs.history import JobHistory, Outcome, RunHistory

__all__ = ["Standing", "leaderboard_json", "rank_jobs", "varying_fields"]


@quick
@dataclass(frozen=True, slots=True)
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
    ranked: list[Standing] = []
    for _, jobs in history.by_task():
        if len(jobs) == 1:
            ranked.append(_standing(jobs[0], directory))
        else:
            ranked += sorted([_standing(job, directory) for job in jobs], key=_loss)
    return tuple(ranked)


def leaderboard_json(standings: Iterable[Standing]) -> Iterator[str]:
    """Parts of a list of flat objects, each on a line; a loss that is not finite is null."""
    chosen, text = None, ""  # most jobs in a row share one set of hyper-parameters, or none does
    end = "[\n"
    for standing in standings:
        if standing.hyperparameters is not chosen:
            chosen = standing.hyperparameters
            text = _members(encode_fields(chosen))
        yield f"{end}  {_row(standing, text)}"
        end = ",\n"
    yield "[]\n" if end == "[\n" else "\n]\n"


def varying_fields(standings: Sequence[Standing]) -> tuple[str, ...]:
    """Hyper-parameters in which the jobs differ; alpha not where it is twice the rank."""
    chosen = [standing.hyperparameters for standing in standings]
    names = [field.name for field in fields(Hyperparameters)]
    if all(one.alpha == 2 * one.rank for one in chosen):
        names.remove("alpha")
    return tuple(name for name in names if len({getattr(one, name) for one in chosen}) > 1)


def _standing(job: JobHistory, directory: RunDirectory | None) -> Standing:
    best = final = None
    if job.reports:
        losses = [report.val_loss for report in job.reports]
        best = min((loss for loss in losses if math.isfinite(loss)), default=None)
        final = losses[-1]
    spec = job.spec
    return Standing(  # by place: each name costs 50 ns, and a trace has 100,000 jobs
        spec.id,
        job.task,
        spec.hyperparameters,
        job.outcome,
        job.reason,
        job.steps,
        best,
        final,
        None if directory is None else _adapter(spec.id, directory),
    )


def _adapter(job: JobId, directory: RunDirectory) -> str | None:
    folder = directory.job_folder(job)
    if not (folder / "adapter_model.safetensors").is_file():  # written last
        return None
    return folder.relative_to(directory.path).as_posix()


def _loss(standing: Standing) -> float:
    return math.inf if standing.best_val_loss is None else standing.best_val_loss


def _row(standing: Standing, hyperparameters: str) -> str:
    """A JSON object; `json.dumps` takes three times as long, and a trace has 100,000 jobs."""
    return (
        f'{{"job": {encode_basestring_ascii(standing.job)}, '
        f'"task": {encode_basestring_ascii(standing.task)}, {hyperparameters}, '
        f'"status": {encode_basestring_ascii(standing.status)}, '
        f'"reason": {_text(standing.reason)}, '
        f'"steps": {standing.steps}, "best_val_loss": {_number(standing.best_val_loss)}, '
        f'"final_val_loss": {_number(standing.final_val_loss)}, '
        f'"adapter": {_text(standing.adapter)}}}'
    )


def _members(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, allow_nan=False)[1:-1]


def _text(text: str | None) -> str:
    return "null" if text is None else encode_basestring_ascii(text)


def _number(loss: float | None) -> str:
    return "null" if loss is None or not math.isfinite(loss) else repr(loss)
